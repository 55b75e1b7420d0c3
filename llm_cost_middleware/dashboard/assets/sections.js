// The sections of the page, each from a part of the document.
"use strict";
// The dimensions that have come, in the order of the page.
const known = (told) => [...new Set([...told.shown, ...Object.keys(told.dimensions)])].filter((one) => Object.hasOwn(told.dimensions, one));

Page.sections = {
  figures(node, told) {
    const { h } = Page;
    const total = told.total;
    const figure = (name, value, small, hero) => h("dl", { class: hero ? "figure hero" : "figure" }, h("dt", null, name), h("dd", { class: "value" }, value), small ? h("dd", { class: "small" }, small) : null);
    const doubt = Number(total.unconfirmed_usd);
    const saved = (usd) => (usd === null ? "–" : Page.money(usd));
    Page.fill(node,
      figure("spent", Page.money(total.cost_usd), `exactly ${total.cost_usd} US dollars`, true),
      figure("calls", Page.count(total.calls), total.calls ? `${Page.amount(Number(total.cost_usd) / total.calls)} a call` : null),
      figure("saved by caching", saved(total.cache_saving_usd), !total.calls ? null : total.cache_saving_usd === null ? "not known: no prices or no usage" : `of ${Page.amount(total.list_usd)} at list price`),
      figure("saved by routing", saved(total.routing_saving_usd), !total.calls ? null : total.routing_saving_usd === null ? "not known" : "against the models that callers named"),
      figure("refused", Page.count(total.refused_calls), total.refused_calls === null ? "this ledger keeps no journal" : "calls that had no budget left"),
      figure("not confirmed", h("span", { class: doubt ? "warn" : null }, Page.money(total.unconfirmed_usd)), [
        Number(total.estimated_usd) ? `${Page.amount(total.estimated_usd)} estimated` : "nothing estimated",
        total.unpriced_calls ? `, ${Page.plural(total.unpriced_calls, "call")} without a price` : null,
      ]));
  },

  // ``more``: another dimension has come, and what is drawn stays.
  time(node, told, by, choose, more) {
    const { h } = Page;
    const body = node.querySelector(".body");
    const choice = document.getElementById("choice");
    if (more && choice.contains(document.activeElement)) choice.dataset.focus = document.activeElement.textContent;
    Page.fill(choice, known(told).map((name) =>
      h("button", { type: "button", "aria-pressed": String(name === by), on: { click: () => choose(name) } }, name.replaceAll("_", " "))));
    [...choice.children].find((one) => one.textContent === choice.dataset.focus)?.focus();
    delete choice.dataset.focus;
    if (more) return;
    if (node.leave) node.leave();
    node.leave = null;
    if (!told.dimensions[by].stack?.length) {
      Page.fill(body, h("p", { class: "none" }, told.total.calls ? "Every call of this period was free." : told.empty ? "Nothing was booked yet. llm-cost demo makes some calls in a ledger of its own." : "Nothing was booked in this period, by these filters."));
      return;
    }
    node.leave = Page.chart(body, told, by);
  },

  tops(node, told, narrow) {
    const { h } = Page;
    Page.fill(node.querySelector(".body"), known(told).map((dimension) => {
      const found = told.dimensions[dimension];
      const word = dimension.replaceAll("_", " ");
      if (!found.top.length) return h("div", null, h("h3", null, `by ${word}`), h("p", { class: "none" }, "Nothing was booked."));
      const whole = Number(told.total.cost_usd);
      const cost = Page.column(found.top.map((row) => row.cost_usd));
      const refused = found.top.some((row) => row.refused_calls);
      const rows = found.top.map((row) => {
        const share = whole ? Number(row.cost_usd) / whole : 0;
        const name = Page.named(row.name, word);
        const link = narrow ? h("a", { href: narrow(dimension, row.name), "aria-label": `only ${word} ${row.name ?? "none"}` }, name) : name;
        return h("tr", null,
          h("th", { scope: "row", class: "text" }, link, h("span", { class: "share", "aria-hidden": "true" }, h("i", { width: `${Math.min(share, 1) * 100}%` }))),
          h("td", null, Page.money(row.cost_usd, cost(row.cost_usd))), h("td", null, Page.percent(share)),
          h("td", { class: "later" }, Page.count(row.calls)), refused ? h("td", null, Page.count(row.refused_calls)) : null);
      });
      const more = found.names - found.top.length;
      return h("div", null, h("h3", null, `by ${word}`), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Spend by ${word}` }, h("table", null,
        h("thead", null, h("tr", null, h("th", { scope: "col", class: "text" }, h("span", { class: "hidden" }, word)), h("th", { scope: "col" }, "cost"), h("th", { scope: "col" }, "share"), h("th", { scope: "col", class: "later" }, "calls"), refused ? h("th", { scope: "col" }, "refused") : null)),
        h("tbody", null, rows))), more > 0 ? h("p", { class: "note" }, `and ${Page.count(more)} more`) : null);
    }));
  },

  budgets(node, told) {
    const { h } = Page;
    const gauge = (one) => {
      const over = one.over || (one.used ?? 0) >= 1;
      const near = !over && ((one.used ?? 0) >= 0.8 || (one.going ?? 0) > 1);
      const spent = Math.min(one.spent ?? 0, 1);
      const held = Math.min(Math.max((one.used ?? 0) - (one.spent ?? 0), 0), 1 - spent);
      const words = [`${Page.amount(one.spent_usd)} spent`, Number(one.held_usd) ? `${Page.amount(one.held_usd)} held${one.leased_usd ? ` (${Page.amount(one.leased_usd)} leased)` : ""}` : null, Number(one.left_usd) < 0 ? `${Page.amount(String(-Number(one.left_usd)))} over` : `${Page.amount(one.left_usd)} left`, one.carried_usd ? `${Page.amount(one.carried_usd)} carried over` : null].filter(Boolean).join(", ");
      const where = one.forecast_usd === null ? null
        : h("span", { class: one.going > 1 ? "bad" : one.going > 0.8 ? "warn" : null }, `at this pace ${Page.amount(one.forecast_usd)} (${Page.percent(one.going)}) when it ends${one.exhausted && !over ? `; empty ${Page.moment(one.exhausted)}` : ""}`);
      return h("li", { class: `gauge${over ? " over" : near ? " near" : ""}` },
        h("div", { class: "line" }, h("b", null, Page.scope(one.scope)), h("span", null, `${Page.percent(one.used)} of `, Page.money(one.limit_usd), ` ${one.window}`)),
        h("div", { class: "meter", role: "meter", "aria-label": `${one.scope}, ${one.window}`, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(Math.min(one.used ?? 0, 1) * 100), "aria-valuetext": `${Page.percent(one.used)}: ${words}` },
          h("span", { class: "spent", width: `${spent * 100}%` }), h("span", { class: "held", width: `${held * 100}%` }),
          one.going !== null && one.going > 0 && one.going < 1 ? h("span", { class: "going", left: `calc(${one.going * 100}% - 2px)` }) : null),
        h("div", { class: "small" }, words, one.resets ? `; resets ${Page.moment(one.resets)}` : null, where ? "; " : null, where));
    };
    Page.fill(node.querySelector(".body"),
      told.pauses.map((one) => h("p", { class: "note bad" }, Page.scope(one.scope), ` is paused since ${Page.moment(one.since)}${one.until ? ` until ${Page.moment(one.until)}` : ""}: `, h("bdi", null, one.reason || "no reason"))),
      told.budgets.length ? h("ul", { class: "gauges" }, told.budgets.map(gauge)) : h("p", { class: "none" }, "No budget is set. ", h("code", null, "llm-cost budgets set global 25 --window month"), " sets one."),
      told.more ? h("p", { class: "note" }, `and ${Page.plural(told.more, "budget")} more, used less: llm-cost budgets`) : null,
      told.budgets.length ? h("p", { class: "note" }, "As of now, whatever the period and the filters. The dark line is where a budget will be when its window ends.") : null);
  },

  savings(node, told) {
    const { h } = Page;
    const total = told.total;
    const body = node.querySelector(".body");
    if (total.list_usd === null) {
      Page.fill(body, h("p", { class: "none" }, total.calls ? "Not known: the rows hold no usage, or their models have no price here." : "Nothing was booked in this period."));
      return;
    }
    const paid = Number(total.cost_usd);
    const most = Math.max(Number(total.list_usd), paid, 1e-12);
    const row = (name, usd, kind) => h("div", { class: "row" }, h("span", null, name), h("span", { class: `track ${kind}`, "aria-hidden": "true" }, h("i", { width: `${Math.max(0, Math.min(Number(usd ?? 0) / most, 1)) * 100}%` })), h("span", { class: `sum${Number(usd) < 0 ? " bad" : ""}` }, Page.money(usd)));
    const parts = ["model", "site"].map((name) => [name, told.dimensions[name]?.savers ?? []]).filter(([, lines]) => lines.length);
    Page.fill(body,
      h("div", { class: "save" }, row("list price, uncached", total.list_usd, "list"), row("paid", total.cost_usd, "paid"), row("saved by caching", total.cache_saving_usd, "good"), row("saved by routing", total.routing_saving_usd, "good")),
      h("div", { class: "pairs" }, parts.map(([name, lines]) => {
        const cells = { caching: Page.column(lines.map((one) => one.cache_saving_usd)), routing: Page.column(lines.map((one) => one.routing_saving_usd)) };
        const cell = (usd, write) => h("td", { class: Number(usd) < 0 ? "bad" : null }, Page.money(usd, write(usd)));
        return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Savings by ${name}` }, h("table", null,
          h("thead", null, h("tr", null, h("th", { scope: "col", class: "text" }, name), h("th", { scope: "col" }, "by caching"), h("th", { scope: "col" }, "by routing"))),
          h("tbody", null, lines.map((one) => h("tr", null, h("th", { scope: "row", class: "text" }, Page.named(one.name, name)), cell(one.cache_saving_usd, cells.caching), cell(one.routing_saving_usd, cells.routing))))));
      })),
      h("p", { class: "note" }, "Caching: what reads saved less what writes cost. Routing: against the model that the caller named. Below zero: it cost more."));
  },

  advice(node, told) {
    const { h } = Page;
    const body = node.querySelector(".body");
    const lines = (one) => h("pre", { class: "lines", tabindex: "0" }, one.configuration.join("\n"));
    if (!told.advice.length) Page.fill(body, h("p", { class: "none" }, told.calls ? "Nothing to advise on the calls of this period." : "Nothing was booked in this period."));
    else {
      Page.fill(body, h("ol", { class: "calls" }, told.advice.map((one) => h("li", null,
        h("div", { class: "line" }, h("b", null, Page.money(one.saved_usd)), h("span", null, h("bdi", null, one.told))),
        h("p", null, h("bdi", null, one.model), one.site ? [" · ", h("bdi", null, one.site)] : null, ` · ${Page.plural(one.calls, "call")}`),
        lines(one), h("p", { class: "why" }, "Not known: ", h("bdi", null, one.unknown))))),
      h("p", { class: "note" }, "All of them, one after the other: ", Page.money(told.saved_usd), told.more ? ` (and ${told.more} more)` : null, ". Every call of the period priced again by itself, whatever the filters; more: llm-cost advise"));
    }
  },

  refused(node, told) {
    const { h } = Page;
    const body = node.querySelector(".body");
    if (told.refusals === null) Page.fill(body, h("p", { class: "none" }, "Not known: this ledger keeps no journal."));
    else if (!told.refusals.length) Page.fill(body, h("p", { class: "none" }, "No call was refused for want of money."));
    else {
      Page.fill(body, h("ul", { class: "calls" }, told.refusals.map((one) => h("li", null,
        h("div", { class: "line" }, h("b", null, Page.money(one.wanted_usd)), h("span", null, "wanted, refused by the budget of "), h("span", null, Page.scope(one.budget))),
        h("p", null, `${Page.moment(one.at)} · `, h("bdi", null, one.model), ...who(one.who))))),
      h("p", { class: "note" }, "The newest. How to raise a budget: llm-cost budgets raise --help"));
    }
  },

  unsure(node, told) {
    const { h } = Page;
    const body = node.querySelector(".body");
    if (told.unsure === null) Page.fill(body, h("p", { class: "none" }, "A filter by model cannot narrow this list: llm-cost ledger unconfirmed has it whole."));
    else if (!told.unsure.length) Page.fill(body, h("p", { class: "none" }, "What every attempt cost is known."));
    else {
      Page.fill(body, h("ul", { class: "calls" }, told.unsure.map((one) => h("li", null,
        h("div", { class: "line" }, h("b", null, one.status === "unpriced" ? "no price" : Page.money(one.cost_usd)), h("span", { class: "warn" }, one.status), h("span", null, Page.moment(one.at))),
        h("p", null, "id ", h("bdi", null, one.id), ...who(one.who))))),
      h("p", { class: "note" }, "Booked as it was held until the provider proves it: llm-cost ledger reconcile ID AMOUNT"));
    }
  },

  calls(node, told) {
    const { h } = Page;
    const list = (head, rows, first) => h("div", null, h("h3", null, head), rows.length ? h("ol", { class: "calls" }, rows.map((one) => h("li", null,
      h("div", { class: "line" }, h("b", null, first(one)), h("span", null, h("bdi", null, one.model ?? "no model")), h("span", { class: "small" }, first === cost ? Page.seconds(one.seconds) : Page.amount(one.cost_usd)), one.status === "exact" ? null : h("span", { class: "warn small" }, one.status)),
      h("p", { class: "why" }, h("bdi", null, one.why ?? "No decision was logged: the caller chose the model.")),
      h("p", null, `${Page.moment(one.at)} · `, h("bdi", null, one.call ?? one.id), ...who(one.who))))) : h("p", { class: "none" }, "None in this period."));
    const cost = (one) => Page.money(one.cost_usd);
    const body = node.querySelector(".body");
    Page.fill(body, h("div", { class: "two" }, list("The dearest", told.dear, cost), list("The slowest, from reservation to settlement", told.slow, (one) => Page.seconds(one.seconds))));
  },
};

function who(scopes) {
  return scopes.flatMap((one) => [" · ", Page.h("bdi", null, one)]);
}
