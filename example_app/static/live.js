// Keeps the panels of the page up to date: polls, and replaces changed panels.
const url = document.currentScript.dataset.url;
const shown = {};

async function update() {
  try {
    const panels = await (await fetch(url)).json();
    for (const [name, html] of Object.entries(panels)) {
      if (shown[name] !== html) {
        document.getElementById(name).innerHTML = shown[name] = html;
      }
    }
    document.body.classList.remove("offline");
  } catch {
    document.body.classList.add("offline");
  }
  setTimeout(update, document.hidden ? 5000 : 700);
}

update();
