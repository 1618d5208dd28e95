// Curves of trainings: fetched as columns, smoothed here, drawn by uPlot, live while one runs.
"use strict";
(() => {
  const box = document.querySelector("[data-curves]");
  if (!box || !window.uPlot) return;
  // the chart's styles must not hold up the first paint
  for (const link of document.querySelectorAll("link[data-late]")) link.media = "all";

  const WHERE = { loss: "steps", lr: "steps", grad_norm: "steps", val_loss: "epochs", val_accuracy: "epochs", samples_per_second: "throughput", tokens_per_second: "throughput", data_stall: "throughput", mfu: "throughput", memory_mib: "memory", gpu_memory_mib: "memory" };
  const MAX_ROWS = 200;
  const wanted = JSON.parse(box.dataset.curves);
  const slider = box.querySelector("[data-smoothing]");
  const logBox = box.querySelector("[data-log]");
  const state = box.querySelector("[data-chart-state]");
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

  // one common column of steps, and a column per run
  function align(key) {
    const columns = runs.map((run) => {
      const group = run[WHERE[key]] || {};
      return { steps: group.step || [], values: group[key] || [] };
    });
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
    const raw = align(key);
    const weight = Number(slider.value);
    const data = [raw[0], ...raw.slice(1).map((row) => smooth(row, weight))];
    const holder = element.querySelector("[data-plot]");
    table(element, raw);
    const isEmpty = raw.slice(1).every((row) => row.every((value) => value === null));
    element.hidden = isEmpty && runs.length > 0 && runs.every((run) => run.state === "done");
    if (isEmpty) {
      plots.get(key)?.destroy();
      plots.delete(key);
      holder.replaceChildren(note("No values yet"));
      return;
    }
    const options = settings(key, holder);
    const known = plots.get(key);
    const look = JSON.stringify([runs.map((run) => run.at), logBox.checked, css("--text"), holder.clientWidth]);
    if (known && known.look === look) { known.setData(data); return; }
    known?.destroy();
    holder.replaceChildren();
    const plot = new window.uPlot(options, data, holder);
    plot.look = look;
    plots.set(key, plot);
  }

  function settings(key, holder) {
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
        ...runs.map((run, index) => ({
          label: run.label, stroke: css(`--curve-${index % 6}`), width: 1.8, spanGaps: true,
          points: { show: WHERE[key] !== "steps", size: 5 },
          value: (_, value) => number(value),
        })),
      ],
    };
  }

  // the same values for those who cannot see the chart
  function table(element, [steps, ...rows]) {
    const [head, body] = [element.querySelector("thead"), element.querySelector("tbody")];
    if (!element.querySelector("details").open) { head.replaceChildren(); body.replaceChildren(); return; }
    const line = (cells, name) => {
      const row = document.createElement("tr");
      for (const text of cells) { const cell = document.createElement(name); cell.textContent = text; cell.className = "num"; row.append(cell); }
      return row;
    };
    head.replaceChildren(line(["Step", ...runs.map((run) => run.label)], "th"));
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

  function drawAll() {
    for (const element of box.querySelectorAll("[data-chart]")) draw(element.dataset.chart, element);
  }

  async function load() {
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
})();
