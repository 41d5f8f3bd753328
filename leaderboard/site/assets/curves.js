"use strict";
// The curves of a run, on logarithmic axes, from the data in the page.

const DASHES = [[], [6, 4]];
const HEIGHT = 280;

const charts = JSON.parse(document.getElementById("curves").textContent);
const figures = [...document.querySelectorAll("figure.chart")];
let drawn = [];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function short(value) {
  if (value === null || value === undefined) return "";
  return value !== 0 && (Math.abs(value) >= 1e6 || Math.abs(value) < 1e-3)
    ? value.toExponential(1).replace(".0e", "e")
    : Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
}

function draw(chart, figure) {
  figure.hidden = false;
  const axis = { stroke: colour("--ink"), grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 } };
  const options = {
    width: figure.clientWidth,
    height: HEIGHT,
    scales: { x: { time: false }, y: { distr: 3 } },
    axes: [
      { ...axis, label: "step", labelSize: 20, values: (_, ticks) => ticks.map(short) },
      { ...axis, size: 64, values: (_, ticks) => ticks.map(short) },
    ],
    series: [
      { label: "step", value: (_, value) => short(value) || "-" },
      ...chart.curves.map((curve, k) => ({
        label: curve.label,
        stroke: colour(`--curve-${k + 1}`),
        width: 2,
        dash: DASHES[k],
        spanGaps: true,
        points: { show: curve.steps.length < 60 },
        value: (_, value) => short(value) || "-",
      })),
    ],
  };
  const data = uPlot.join(chart.curves.map((curve) => [curve.steps, curve.values]));
  const plot = new uPlot(options, data, figure);
  plot.ctx.canvas.setAttribute("role", "img");
  plot.ctx.canvas.setAttribute("aria-label", `${chart.title} against training steps`);
  return plot;
}

function redraw() {
  for (const plot of drawn) plot.destroy();
  drawn = charts.map((chart, k) => draw(chart, figures[k]));
}

redraw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new ResizeObserver(() => {
  drawn.forEach((plot, k) => plot.setSize({ width: figures[k].clientWidth, height: HEIGHT }));
}).observe(document.querySelector(".charts"));
