// The page: what its address asks for is fetched, or stands in it; filters are links, and change the address alone.
"use strict";
(() => {
  const { h } = Page;
  const $ = (id) => document.getElementById(id);
  const alone = $("document") ? JSON.parse($("document").textContent) : null;
  const PRESETS = [["today", { during: "today" }], ["yesterday", { during: "yesterday" }], ["7 days", { since: "7d" }], ["30 days", {}], ["this month", { during: "this month" }], ["last month", { during: "last month" }], ["all", { since: "all" }]];
  const TIMES = ["since", "until", "during"];
  const NEEDS = { figures: "spending", time: "spending", tops: "spending", savings: "spending", budgets: "gauges", refused: "calls", unsure: "calls", calls: "calls", advice: "advice" };
  const answers = {};
  let asked = 0;

  // The address: of the served page its query, of a file its hash, which alone a file can have.
  const words = () => new URLSearchParams(alone ? location.hash.slice(1) : location.search);
  const address = (given) => `${alone ? "#" : "?"}${given}`;

  function changed(change) {
    const given = words();
    for (const [name, value] of Object.entries(change)) {
      given.delete(name);
      if (value !== null && value !== "") given.set(name, value);
    }
    return given;
  }

  function go(given) {
    history.pushState(null, "", address(given));
    load();
  }

  function by() {
    const wanted = words().get("by") ?? answers.spending?.by ?? "model";
    return answers.spending && Object.hasOwn(answers.spending.dimensions, wanted) && answers.spending.dimensions[wanted].stack ? wanted : answers.spending?.by ?? "model";
  }

  const merged = (more) => {
    const dimensions = { ...answers.spending.dimensions };
    for (const [name, told] of Object.entries(more.dimensions)) dimensions[name] = { ...dimensions[name], ...told };
    return { ...answers.spending, dimensions };
  };

  async function choose(dimension) {
    history.pushState(null, "", address(changed({ by: dimension })));
    if (!answers.spending.dimensions[dimension].stack) {
      const mine = asked;
      $("time").setAttribute("aria-busy", "true");
      const told = await get("spending", words(), mine);
      if (mine !== asked) return;
      $("time").setAttribute("aria-busy", "false");
      if (!told) return;
      answers.spending = merged(told);
    }
    if (by() !== dimension) return;
    Page.sections.time($("time"), answers.spending, dimension, choose);
    $("choice").querySelector("[aria-pressed=true]")?.focus();
  }

  function narrow(dimension, name) {
    const given = words();
    given.append("only", `${dimension}=${name ?? ""}`);
    return address(given);
  }

  function draw(part, told) {
    const same = part === "spending" && answers.spending?.made === told.made && answers.spending?.begins === told.begins;
    answers[part] = told;
    Page.currency = told.currency;
    Page.year = told.year;
    if (part === "spending" && !same) head(told);
    for (const [section, needs] of Object.entries(NEEDS)) {
      if (needs !== part) continue;
      const node = $(section);
      if (section === "time") Page.sections.time(node, told, by(), choose, same);
      else if (section === "tops") Page.sections.tops(node, told, alone ? null : narrow);
      else Page.sections[section](node, told);
      node.setAttribute("aria-busy", "false");
    }
  }

  function head(told) {
    const span = told.first === told.last ? Page.day(told.first) : `${Page.day(told.first, told.first.slice(0, 4) !== told.last.slice(0, 4))} – ${Page.day(told.last)}`;
    Page.fill($("period"), `${span}, ${told.zone}${told.filters.length ? "" : ", everything"}`);
    document.title = `What calls cost: ${span}`;
    Page.fill($("footer"), h("p", null, `${told.currency.note} · made ${Page.moment(told.made)}, ${told.zone}, by llm-cost from its ledger`), told.notes.map((note) => h("p", null, note)),
      h("p", null, "A call counts where its money was reserved. Charts: uPlot, MIT licence."));
    chips(told);
    if (!alone) form(told);
  }

  function chips(told) {
    const given = words();
    const shown = alone ? told.filters.map((one) => [`${one.dimension} ${one.keep ? "is" : "is not"} ${one.names.map((name) => name.replace(/\[([*?[])\]/g, "$1") || "none").join(" or ")}`, null])
      : ["where", "only"].flatMap((name) => given.getAll(name).filter(Boolean).map((value) => [value.endsWith("=") ? `${value} (none)` : value, () => {
        const left = given.getAll(name);
        left.splice(left.indexOf(value), 1);
        given.delete(name);
        left.forEach((one) => given.append(name, one));
        go(given);
      }]));
    $("chips").hidden = !shown.length;
    Page.fill($("chips"), shown.map(([text, drop]) => h("li", null, h("bdi", null, text), drop ? h("button", { type: "button", "aria-label": `remove the filter ${text}`, on: { click: drop } }, "×") : null)));
  }

  function form(told) {
    const given = words();
    const node = $("filters");
    node.hidden = false;
    const fresh = !TIMES.some((name) => given.has(name));
    Page.fill($("presets"), PRESETS.map(([name, times]) => {
      const target = changed({ since: null, until: null, during: null, over: null, ...times });
      const current = Object.keys(times).length ? Object.entries(times).every(([key, value]) => given.get(key) === value) : fresh;
      return h("a", { href: address(target), "aria-current": current ? "true" : null }, name);
    }));
    node.elements.since.value = told.first;
    node.elements.last.value = told.last;
    const over = node.elements.over;
    Page.fill(over, told.overs.map((one) => h("option", { value: one, selected: one === told.over }, one)));
    over.dataset.shown = told.over;
  }

  function dayAfter(iso) {
    const day = new Date(`${iso}T12:00:00Z`);
    day.setUTCDate(day.getUTCDate() + 1);
    return day.toISOString().slice(0, 10);
  }

  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    const { since, last, over, where } = event.target.elements;
    const told = answers.spending;
    const change = {};
    if (!told || since.value !== told.first || last.value !== told.last) Object.assign(change, { during: null, since: since.value || "all", until: last.value ? dayAfter(last.value) : null });
    if (!told || over.value !== told.over) change.over = over.value;
    else if (change.since) change.over = null;
    const given = changed(change);
    // "team=ads,search, model!=gpt-5*": a new filter begins at each sign
    where.value.split(/,\s*(?=[a-z][a-z0-9_]*\s*!?=)/).map((one) => one.trim()).filter(Boolean).forEach((one) => given.append("where", one));
    where.value = "";
    go(given);
  });
  $("again").addEventListener("click", load);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link || alone || event.ctrlKey || event.metaKey || event.shiftKey || event.button || !link.getAttribute("href").startsWith("?")) return;
    event.preventDefault();
    history.pushState(null, "", link.getAttribute("href"));
    load();
    if (!document.body.contains(document.activeElement) || document.activeElement === document.body) $("main").focus();
  });
  addEventListener("popstate", load);

  function fail(message) {
    $("trouble").append(h("p", null, message, answers.spending || !location.search ? null : [" ", h("a", { href: "?" }, "Show the last 30 days")]));
  }

  const said = new Set();
  const wait = (part, busy) => Object.entries(NEEDS).forEach(([section, needs]) => needs === part && $(section).setAttribute("aria-busy", String(busy)));

  async function get(part, query, mine) {
    let told;
    try {
      const answer = await fetch(`data/${part}?${query}`, { headers: { Accept: "application/json" }, redirect: "error" });
      told = answer.headers.get("Content-Type")?.startsWith("application/json") ? await answer.json() : { error: (await answer.text()).trim() };
    } catch {
      told = { error: "The dashboard does not answer: is llm-cost dashboard still running?" };
    }
    if (mine !== asked) return null;
    if (told.error === undefined) return told;
    wait(part, false);
    if (!said.has(told.error)) fail(told.error);
    said.add(told.error);
    if (part === "spending") chips({ filters: [] });
    return null;
  }

  async function load() {
    const mine = ++asked;
    $("trouble").replaceChildren();
    if (alone) {
      Object.keys(alone).forEach((part) => draw(part, alone[part]));
      document.documentElement.dataset.ready = String(mine);
      return;
    }
    said.clear();
    const given = words();
    const simple = async (part) => {
      wait(part, true);
      const told = await get(part, given, mine);
      if (told) draw(part, told);
    };
    // The dimension that is stacked comes first; the others follow one by one, and the page fills.
    const spending = async () => {
      wait("spending", true);
      const first = await get("spending", given, mine);
      if (!first) return;
      draw("spending", first);
      for (const dimension of first.shown) {
        if (Object.hasOwn(answers.spending.dimensions, dimension)) continue;
        const told = await get("list", changed({ by: dimension }), mine);
        if (!told) return;
        draw("spending", merged(told));
      }
    };
    await Promise.all([simple("gauges"), spending(), simple("calls")]);
    await simple("advice");  // it reads every call, and nothing else on the page waits for it
    if (mine === asked) document.documentElement.dataset.ready = String(mine);
  }

  load();
})();
