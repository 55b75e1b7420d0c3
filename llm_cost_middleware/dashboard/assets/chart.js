// Bars over time, stacked: uPlot draws sums, the largest first, so that each shows what it adds to the one before.
"use strict";
Page.chart = (holder, told, dimension) => {
  const { h } = Page;
  const parts = told.dimensions[dimension];
  const layers = parts.stack.map((one, number) => ({ name: one.name, usd: one.usd, key: number }));
  if (parts.rest) layers.push({ name: `${Page.count(parts.rest.count)} others`, usd: parts.rest.usd, key: "rest", rest: true });
  const count = told.stretches.length;
  const sums = [];
  let below = new Array(count).fill(0);
  for (const layer of layers) {
    below = below.map((sum, at) => sum + Page.shown(layer.usd[at]));
    sums.push(below);
  }
  const label = (layer) => (layer.rest ? layer.name : layer.name === null ? `no ${dimension}` : layer.name);
  const canvas = h("div", { class: "chart", tabindex: "0", role: "group", "aria-label": `Bars of spend, stacked by ${dimension}. Left and right keys tell each bar; the table below has every figure.` });
  const tip = h("div", { class: "tip", hidden: true });
  const spoken = h("div", { class: "hidden", "aria-live": "polite" });
  const legend = h("ul", { class: "legend" }, layers.map((layer) => {
    const sum = layer.usd.reduce((one, two) => one + two, 0);
    return h("li", null, h("span", { class: `key k${layer.key}`, "aria-hidden": "true" }), layer.rest ? layer.name : Page.named(layer.name, dimension), h("span", { class: "amount" }, Page.amount(sum)));
  }));
  canvas.append(tip);
  Page.fill(holder, canvas, spoken, legend, parts.several ? h("p", { class: "note" }, `${Page.plural(parts.several, "call")} more stand here than were made: one with several ${dimension}s stands in each.`) : null, table());

  let plot = null;
  let at = null;
  draw();
  const watch = new ResizeObserver(() => plot && plot.setSize(size()));
  watch.observe(canvas);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", draw);
  canvas.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: (at ?? count) - 1, ArrowRight: (at ?? -1) + 1, Home: 0, End: count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(Math.min(Math.max(to, 0), count - 1));
    spoken.textContent = words(at);
  });
  canvas.addEventListener("blur", () => show(null));
  return () => {
    watch.disconnect();
    scheme.removeEventListener("change", draw);
    if (plot) plot.destroy();
  };

  function size() {
    return { width: Math.max(canvas.clientWidth, 200), height: canvas.clientHeight };
  }

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function draw() {
    if (plot) plot.destroy();
    const most = Math.max(0, ...(sums.at(-1) ?? [0]));
    const grid = { stroke: color("--line"), width: 1 };
    const axis = { stroke: color("--soft"), font: `12px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false } };
    const bars = uPlot.paths.bars({ size: [0.78, 64, 1] });
    plot = new uPlot({
      ...size(),
      padding: [8, 24, 0, 0],
      legend: { show: false },
      cursor: { y: false, x: false, points: { show: false }, drag: { x: false, y: false } },
      scales: { x: { time: false, range: [-0.5, count - 0.5] }, y: { range: [0, most > 0 ? most * 1.06 : 1] } },
      axes: [
        { ...axis, grid: { show: false }, size: 30, splits: spread, values: (_, splits) => splits.map((one) => Page.stretch(told.stretches[one], true)) },
        { ...axis, grid, size: (self, values) => Math.max(...(values ?? [""]).map((one) => one.length)) * 7 + 14, values: (_, splits) => splits.map((one) => Page.written(one, decimals(splits))) },
      ],
      series: [{}, ...sums.map((_, number) => ({ paths: bars, points: { show: false }, width: 0, fill: color(layers[layers.length - 1 - number].rest ? "--rest" : `--c${layers[layers.length - 1 - number].key}`) }))],
      hooks: { setCursor: [(self) => tell(self.cursor.left >= 0 ? self.posToIdx(self.cursor.left) : null)] },
    }, [told.stretches.map((_, number) => number), ...sums.slice().reverse()], canvas);
    plot.root.setAttribute("aria-hidden", "true");
  }

  // As many decimals as the marks of the axis have: none, or those of cents at least.
  function decimals(marks) {
    const of = (mark) => [0, 2, 3, 4, 5, 6, 7, 8, 9].find((places) => Math.abs(Number(mark.toFixed(places)) - mark) < 1e-12) ?? 9;
    return Math.max(...marks.map(of));
  }

  // As many names under the axis as there is room for, the last bar among them.
  function spread(self) {
    const longest = Math.max(...told.stretches.map((one) => Page.stretch(one, true).length));
    const step = Math.max(1, Math.ceil((longest * 7 + 14) / (self.bbox.width / devicePixelRatio / count)));
    const found = [];
    for (let number = count - 1; number >= 0; number -= step) found.unshift(number);
    return found;
  }

  function show(number) {
    if (!plot) return;
    plot.setCursor(number === null ? { left: -10, top: -10 } : { left: plot.valToPos(number, "x"), top: 10 });
  }

  function tell(number) {
    at = number;
    tip.hidden = number === null;
    if (number === null) return;
    const some = layers.filter((layer) => layer.usd[number]).sort((one, two) => two.usd[number] - one.usd[number]);
    const total = layers.reduce((sum, layer) => sum + layer.usd[number], 0);
    Page.fill(tip, h("b", null, `${Page.stretch(told.stretches[number], false)}: ${Page.amount(total)}`),
      some.map((layer) => h("div", null, h("span", { class: `key k${layer.key}` }), h("span", null, label(layer)), h("span", null, Page.amount(layer.usd[number])))));
    const left = plot.valToPos(number, "x") + plot.bbox.left / devicePixelRatio;
    const room = canvas.clientWidth - tip.offsetWidth;
    tip.style.left = `${Math.max(0, Math.min(left > canvas.clientWidth / 2 ? left - tip.offsetWidth - 14 : left + 14, room))}px`;
    tip.style.top = "4px";
  }

  function words(number) {
    const some = layers.filter((layer) => layer.usd[number]).map((layer) => `${label(layer)} ${Page.amount(layer.usd[number])}`);
    const total = layers.reduce((sum, layer) => sum + layer.usd[number], 0);
    return `${Page.stretch(told.stretches[number], false)}: ${Page.amount(total)}${some.length > 1 ? `; ${some.join(", ")}` : ""}`;
  }

  function table() {
    const write = Page.column(layers.flatMap((layer) => layer.usd));
    const rows = told.stretches.map((stretch, number) => h("tr", null, h("th", { scope: "row", class: "text" }, Page.stretch(stretch, false)),
      layers.map((layer) => h("td", null, write(layer.usd[number]))), h("td", null, write(layers.reduce((sum, layer) => sum + layer.usd[number], 0)))));
    const details = h("details", null, h("summary", null, "The same as a table"));
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return;
      details.append(h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": `Spend by ${dimension} and ${told.over}` }, h("table", null,
        h("thead", null, h("tr", null, h("th", { scope: "col", class: "text" }, told.over), layers.map((layer) => h("th", { scope: "col" }, label(layer))), h("th", { scope: "col" }, "total"))),
        h("tbody", null, rows))));
    });
    return details;
  }
};
