"""What users install, where nothing else is installed: by ``tox -e installs``."""
