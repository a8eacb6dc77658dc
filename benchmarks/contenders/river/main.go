// River's client for the benchmarks: river declare|fill|left|drain|publish|many|listen|pace JOB.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

const batch = 500

// job has the fields of benchmarks/job.py that this program needs.
type job struct {
	URL         string  `json:"url"`
	Count       int     `json:"count"`
	Concurrency int     `json:"concurrency"`
	Work        float64 `json:"work"`
	Pace        float64 `json:"pace"`
}

type item struct {
	SKU   string `json:"sku"`
	Count int    `json:"count"`
	Price string `json:"price"`
}

// order is the body of each message, as in benchmarks/job.py; At is only for latencies.
type order struct {
	ID       int     `json:"id"`
	Customer string  `json:"customer"`
	Items    []item  `json:"items"`
	At       float64 `json:"at,omitempty"`
}

func (order) Kind() string { return "order" }

var body = order{
	ID:       4711,
	Customer: "Ada Lovelace",
	Items:    []item{{"A-100", 2, "19.99"}, {"B-200", 1, "5.00"}, {"C-300", 7, "0.49"}},
}

type worker struct {
	river.WorkerDefaults[order]
	handle func(order)
}

func (w *worker) Work(_ context.Context, job *river.Job[order]) error {
	w.handle(job.Args)
	return nil
}

func main() {
	var j job
	check(json.Unmarshal([]byte(os.Args[2]), &j))
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(j.URL)
	check(err)
	config.MaxConns = 10
	pool, err := pgxpool.NewWithConfig(ctx, config)
	check(err)
	steps := map[string]func(context.Context, *pgxpool.Pool, job){
		"declare": declare, "fill": fill, "left": left, "drain": drain,
		"publish": publish, "many": many, "listen": listen, "pace": pace,
	}
	steps[os.Args[1]](ctx, pool, j)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tell(figures map[string]any) {
	text, err := json.Marshal(figures)
	check(err)
	fmt.Println(string(text))
}

func declare(ctx context.Context, pool *pgxpool.Pool, _ job) {
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	check(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	check(err)
}

func client(pool *pgxpool.Pool, j job, handle func(order)) *river.Client[pgx.Tx] {
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{handle: handle})
	made, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		// By default it waits for 100 ms between two fetches.
		FetchCooldown: time.Millisecond,
		Logger:        slog.New(slog.NewTextHandler(io.Discard, nil)),
		Queues:        map[string]river.QueueConfig{"default": {MaxWorkers: j.Concurrency}},
		Workers:       workers,
	})
	check(err)
	return made
}

func fill(ctx context.Context, pool *pgxpool.Pool, j job) {
	declare(ctx, pool, j)
	insertMany(ctx, pool, j, func() {})
}

func insertMany(ctx context.Context, pool *pgxpool.Pool, j job, one func()) {
	made := client(pool, j, nil)
	params := make([]river.InsertManyParams, batch)
	for i := range params {
		params[i] = river.InsertManyParams{Args: body}
	}
	for done := 0; done < j.Count; done += batch {
		_, err := made.InsertManyFast(ctx, params)
		check(err)
		for range params {
			one()
		}
	}
}

func left(ctx context.Context, pool *pgxpool.Pool, _ job) {
	var count int
	sql := "select count(*) from river_job where state <> 'completed'"
	check(pool.QueryRow(ctx, sql).Scan(&count))
	fmt.Println(count)
}

func drain(ctx context.Context, pool *pgxpool.Pool, j job) {
	one := tally(j)
	work := time.Duration(j.Work * float64(time.Second))
	check(client(pool, j, func(order) {
		if work > 0 {
			time.Sleep(work)
		}
		one()
	}).Start(ctx))
	select {}
}

// publish inserts from a hundred goroutines, each of which waits for its commits.
func publish(ctx context.Context, pool *pgxpool.Pool, j job) {
	declare(ctx, pool, j)
	made, one := client(pool, j, nil), tally(j)
	var all sync.WaitGroup
	for range j.Concurrency {
		all.Add(1)
		go func() {
			defer all.Done()
			for range j.Count / j.Concurrency {
				_, err := made.Insert(ctx, body, nil)
				check(err)
				one()
			}
		}()
	}
	all.Wait()
}

func many(ctx context.Context, pool *pgxpool.Pool, j job) {
	declare(ctx, pool, j)
	insertMany(ctx, pool, j, tally(j))
}

func listen(ctx context.Context, pool *pgxpool.Pool, j job) {
	var lock sync.Mutex
	var late []float64
	check(client(pool, j, func(o order) {
		lock.Lock()
		defer lock.Unlock()
		late = append(late, now()-o.At)
		if len(late) == j.Count {
			late = late[j.Count/10:]
			sort.Float64s(late)
			tell(map[string]any{"p50": late[len(late)/2] * 1000, "p99": late[len(late)*99/100] * 1000})
		}
	}).Start(ctx))
	time.Sleep(time.Second)
	tell(map[string]any{"listens": true})
	select {}
}

func pace(ctx context.Context, pool *pgxpool.Pool, j job) {
	made, begun := client(pool, j, nil), time.Now()
	for number := range j.Count {
		due := time.Duration(float64(number) / j.Pace * float64(time.Second))
		time.Sleep(time.Until(begun.Add(due)))
		_, err := made.Insert(ctx, order{At: now()}, nil)
		check(err)
	}
}

func now() float64 { return float64(time.Now().UnixNano()) / 1e9 }

// tally returns a counter, whose clock runs from a tenth of the messages to the last.
func tally(j job) func() {
	var done atomic.Int64
	var began time.Time
	var used float64
	first, last := int64(j.Count/10), int64(j.Count)
	return func() {
		switch done.Add(1) {
		case first:
			began, used = time.Now(), cpu()
		case last:
			messages := float64(last - first)
			tell(map[string]any{
				"rate":   messages / time.Since(began).Seconds(),
				"cpu":    (cpu() - used) / messages * 1e6,
				"memory": memory(),
			})
		}
	}
}

func cpu() float64 {
	var used syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}

// memory returns the peak memory of this process in MiB.
func memory() float64 {
	text, err := os.ReadFile("/proc/self/status")
	check(err)
	var kilobytes float64
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	_, err = fmt.Sscan(after, &kilobytes)
	check(err)
	return kilobytes / 1024
}
