// Curves of trainings: fetched as columns, smoothed here, drawn by uPlot, live while one runs.
"use strict";
// the chart's styles must not hold up the first paint
for (const link of document.querySelectorAll("link[data-late]")) link.media = "all";

function showCurves(box) {
  const WHERE = { loss: "steps", tasks: "steps", ranks: "memory", lr: "steps", grad_norm: "steps", val_loss: "epochs", val_accuracy: "epochs", samples_per_second: "throughput", tokens_per_second: "throughput", data_stall: "throughput", mfu: "throughput", memory_mib: "memory", gpu_memory_mib: "memory" };
  // several curves of one training: those whose names fit
  const GPU = new Set(["mfu", "gpu_memory_mib"]);
  const SEVERAL = { tasks: /^(class|contrastive)_/, ranks: /^rank / };
  const MAX_ROWS = 200;
  const wanted = JSON.parse(box.dataset.curves);
  const slider = box.querySelector("[data-smoothing]");
  const logBox = box.querySelector("[data-log]");
  const state = box.querySelector("[data-chart-state]");
  const now = box.querySelector("[data-now]");
  const plots = new Map();
  let runs = [];

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // exponential average that starts unbiased, as TensorBoard has it
  function smooth(values, weight) {
    if (!weight) return values;
    let last = 0;
    let count = 0;
    return values.map((value) => {
      if (value === null) return null;
      last = last * weight + (1 - weight) * value;
      count += 1;
      return last / (1 - weight ** count);
    });
  }

  // what a chart shows: a line per run, or several of one run
  function lines(key) {
    const column = (run, name, label) => ({ label, steps: (run[WHERE[key]] || {}).step || [], values: (run[WHERE[key]] || {})[name] || [] });
    if (!SEVERAL[key]) return runs.map((run) => column(run, key, run.label));
    const names = runs.length === 1 ? Object.keys(runs[0][WHERE[key]] || {}).filter((name) => SEVERAL[key].test(name)) : [];
    return names.length > 1 ? names.map((name) => column(runs[0], name, name.replaceAll("_", " "))) : [];
  }

  // one common column of steps, and a column per line
  function align(columns) {
    const steps = [...new Set(columns.flatMap((one) => one.steps))].sort((a, b) => a - b);
    const at = new Map(steps.map((step, index) => [step, index]));
    const rows = columns.map(({ steps: own, values }) => {
      const row = new Array(steps.length).fill(null);
      own.forEach((step, index) => { row[at.get(step)] = values[index] ?? null; });
      return row;
    });
    return [steps, ...rows];
  }

  function number(value) {
    if (value === null || value === undefined) return "-";
    const size = Math.abs(value);
    return size !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(2) : String(+value.toPrecision(5));
  }

  function draw(key, element) {
    const shown = lines(key);
    const raw = align(shown);
    const weight = Number(slider.value);
    const data = [raw[0], ...raw.slice(1).map((row) => smooth(row, weight))];
    const holder = element.querySelector("[data-plot]");
    table(element, raw, shown);
    const isEmpty = raw.slice(1).every((row) => row.every((value) => value === null));
    element.hidden = isEmpty && runs.length > 0 && (key in SEVERAL || GPU.has(key) || runs.every((run) => run.state === "done"));
    if (isEmpty) {
      plots.get(key)?.destroy();
      plots.delete(key);
      holder.replaceChildren(note("No values yet"));
      return;
    }
    const options = settings(key, holder, shown);
    const known = plots.get(key);
    const look = JSON.stringify([shown.map((one) => one.label), runs.map((run) => run.at), logBox.checked, css("--text"), holder.clientWidth]);
    if (known && known.look === look) { known.setData(data); return; }
    known?.destroy();
    holder.replaceChildren();
    const plot = new window.uPlot(options, data, holder);
    plot.look = look;
    plots.set(key, plot);
  }

  function settings(key, holder, shown) {
    const grid = { stroke: css("--line"), width: 1 };
    const axis = { stroke: css("--muted"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const isLog = logBox.checked && key !== "val_accuracy";
    return {
      width: Math.max(240, holder.clientWidth),
      height: 240,
      cursor: { sync: { key: "training" }, points: { size: 6 } },
      scales: { x: { time: false }, y: { distr: isLog ? 3 : 1 } },
      axes: [{ ...axis }, { ...axis, size: 62, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick))) }],
      series: [
        { label: "step" },
        ...shown.map((one, index) => ({
          label: one.label, stroke: css(`--curve-${index % 6}`), width: 1.8, spanGaps: true,
          points: { show: WHERE[key] !== "steps", size: 5 },
          value: (_, value) => number(value),
        })),
      ],
    };
  }

  // the same values for those who cannot see the chart
  function table(element, [steps, ...rows], shown) {
    const [head, body] = [element.querySelector("thead"), element.querySelector("tbody")];
    if (!element.querySelector("details").open) { head.replaceChildren(); body.replaceChildren(); return; }
    const line = (cells, name) => {
      const row = document.createElement("tr");
      for (const text of cells) { const cell = document.createElement(name); cell.textContent = text; cell.className = "num"; row.append(cell); }
      return row;
    };
    head.replaceChildren(line(["Step", ...shown.map((one) => one.label)], "th"));
    const stride = Math.max(1, Math.ceil(steps.length / MAX_ROWS));
    body.replaceChildren(...steps.flatMap((step, index) =>
      index % stride && index !== steps.length - 1 ? [] : [line([step, ...rows.map((row) => number(row[index]))], "td")]));
  }

  function note(text) {
    const element = document.createElement("div");
    element.className = "plot-empty";
    element.textContent = text;
    return element;
  }

  // a training that runs: its newest figures in words
  function tellNow() {
    const running = runs.length === 1 && runs[0].state === "running" ? runs[0].now || [] : [];
    now.replaceChildren(...running.map(([words, value]) => {
      const stat = document.createElement("div");
      stat.className = "stat";
      const [label, figure] = [document.createElement("div"), document.createElement("div")];
      [label.className, label.textContent, figure.className, figure.textContent] = ["stat-label", words, "stat-value", value];
      stat.append(label, figure);
      return stat;
    }));
  }

  function drawAll() {
    tellNow();
    for (const element of box.querySelectorAll("[data-chart]")) draw(element.dataset.chart, element);
  }

  async function load() {
    if (!box.isConnected) return; // replaced by a newer one
    try {
      const answers = await Promise.all(wanted.map((at) => fetch(`/api/training/${at.split("/").map(encodeURIComponent).join("/")}`)));
      const failed = answers.find((answer) => !answer.ok);
      if (failed) throw new Error(`${failed.status}`);
      runs = await Promise.all(answers.map((answer) => answer.json()));
    } catch (error) {
      state.textContent = `The curves cannot be read (${error.message}). Trying again.`;
      setTimeout(load, 5000);
      return;
    }
    drawAll();
    box.dataset.drawn = "true";
    const isLive = runs.some((run) => run.state === "running");
    state.textContent = isLive ? "Live: new values come by themselves" : "";
    if (isLive) setTimeout(load, 3000);
  }

  slider.addEventListener("input", () => {
    box.querySelector("[data-smoothing-value]").textContent = slider.value;
    drawAll();
  });
  logBox.addEventListener("change", drawAll);
  document.addEventListener("mm:theme", drawAll);
  for (const details of box.querySelectorAll("details")) details.addEventListener("toggle", drawAll);
  let resizing = 0;
  addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(drawAll, 150); });
  load();
}

function showAllCurves() {
  if (!window.uPlot) return;
  for (const box of document.querySelectorAll("[data-curves]:not([data-begun])")) {
    box.dataset.begun = "true";
    showCurves(box);
  }
}
document.addEventListener("mm:part", showAllCurves);
showAllCurves();
