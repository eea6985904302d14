// Pages work without this file. It shows times in the reader's own zone, draws charts, and keeps a second click from
// sending a form twice while the first is on its way (the server books it once in any case).
(() => {
  "use strict";
  const locale = document.documentElement.lang || undefined;

  const times = (root) => {
    for (const t of root.querySelectorAll("time[datetime]")) {
      const at = new Date(t.dateTime);
      if (isNaN(at)) continue;
      t.title = t.textContent;
      t.textContent = t.hasAttribute("data-day")
        ? at.toLocaleDateString(locale, { dateStyle: "medium" })
        : at.toLocaleString(locale, { dateStyle: "medium", timeStyle: "short" });
    }
  };

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // A chart is an element with data-chart: where its JSON is. {x: [unix seconds], label, series: [{label, values, kind}]}
  const charts = (root) => {
    if (!window.uPlot) return;
    for (const place of root.querySelectorAll("[data-chart]")) {
      fetch(place.dataset.chart, { headers: { Accept: "application/json" } })
        .then((r) => (r.ok ? r.json() : Promise.reject(r.status)))
        .then((data) => draw(place, data))
        .catch(() => { place.hidden = true; }); // the figures above it, and the activity, say the same
    }
  };

  const draw = (place, data) => {
    if (data.x.length === 0) { place.hidden = true; return; }
    const number = new Intl.NumberFormat(locale, { maximumFractionDigits: 6 });
    const brief = new Intl.NumberFormat(locale, { notation: "compact" }); // what is large must fit beside the axis
    const day = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric" });
    let plot;
    const make = () => {
      if (plot) plot.destroy();
      const line = color("--line"), dim = color("--dim"), brand = color("--brand"), warn = color("--warn");
      const strokes = [brand, warn, dim];
      plot = new uPlot({
        width: place.clientWidth, height: 220,
        cursor: { y: false }, legend: { show: true },
        scales: { y: { range: (u, min, max) => [Math.min(0, min), max > 0 ? max * 1.08 : 1] } },
        axes: [
          { stroke: dim, grid: { stroke: line, width: 1 }, ticks: { stroke: line }, values: (u, v) => v.map((s) => day.format(s * 1e3)), space: 70 },
          { stroke: dim, grid: { stroke: line, width: 1 }, ticks: { stroke: line }, size: 64, values: (u, v) => v.map((n) => (Math.abs(n) < 1e5 ? number : brief).format(n)) },
        ],
        series: [{ label: data.label || "", value: (u, s) => (s == null ? "–" : day.format(s * 1e3)) }].concat(data.series.map((s, i) => ({
          label: s.label, stroke: strokes[i % 3], width: 2, value: (u, v) => (v == null ? "–" : number.format(v)),
          fill: s.kind === "area" ? color("--note-soft") : undefined,
          paths: s.kind === "points" ? () => null : undefined,
          points: s.kind === "points" ? { show: true, size: 9, fill: strokes[i % 3] } : { show: false },
        }))),
      }, [data.x].concat(data.series.map((s) => s.values)), place);
    };
    make();
    let width = place.clientWidth;
    new ResizeObserver(() => { if (place.clientWidth !== width) { width = place.clientWidth; plot.setSize({ width, height: 220 }); } }).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", make);
  };

  document.addEventListener("submit", (e) => {
    const form = e.target;
    if (form.dataset.sent) { e.preventDefault(); return; }
    if (form.method === "post") form.dataset.sent = "1";
  });
  addEventListener("pageshow", (e) => {
    // A page that a browser kept says what was so then; one that asks for something to be done is fetched anew.
    if (e.persisted && document.querySelector("[data-stale]")) { location.reload(); return; }
    for (const f of document.querySelectorAll("form[data-sent]")) delete f.dataset.sent;
  });

  document.addEventListener("DOMContentLoaded", () => { times(document); charts(document); });
  document.addEventListener("htmx:load", (e) => { times(e.detail.elt); charts(e.detail.elt); });
})();
