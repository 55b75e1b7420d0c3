// Elements and words of the page. What comes from a ledger is written as text, never read as markup.
"use strict";
const Page = {};

// h("p", {class: "note"}, "text", node, null): an element. Only known attributes, and none that a URL or a script is in.
Page.h = (tag, given, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") Object.entries(value).forEach(([event, act]) => node.addEventListener(event, act));
    else if (name === "width") node.style.width = value;
    else if (name === "left") node.style.left = value;
    else if (name === "href" && !/^[?#]/.test(value)) throw new Error("links lead to this page alone");
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(2)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
  return node;
};

Page.fill = (node, ...children) => node.replaceChildren(...children.flat(2).filter((one) => one !== null && one !== undefined && one !== false));

// Amounts: exact text of US dollars in, what people are shown out.
Page.currency = { sign: "$", rate: "1", note: "US dollars" };
Page.shown = (usd) => Number(usd) * Number(Page.currency.rate);
Page.places = (size) => (size >= 10 || size === 0 ? 2 : Math.min(Math.max(3 - Math.floor(Math.log10(size)), 2), 9));
Page.written = (value, places) => {
  const size = Math.abs(value).toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  return `${value < 0 && Number(size.replace(/,/g, "")) !== 0 ? "-" : ""}${Page.currency.sign}${size}`;
};
Page.amount = (usd) => {
  if (usd === null || usd === undefined) return "–";
  const value = Page.shown(usd);
  const places = Page.places(Math.abs(value));
  // Where nothing was rounded away, zeros at the end say nothing.
  const exact = Math.abs(Number(value.toFixed(places)) - value) < 1e-12;
  return exact ? Page.written(value, places).replace(/(\.\d\d\d*?)0+$/, "$1") : Page.written(value, places);
};
// A column has one number of decimals; what is smaller than they can tell says so.
Page.column = (amounts) => {
  const most = Math.max(0, ...amounts.filter((one) => one !== null).map((one) => Math.abs(Page.shown(one))));
  const places = Math.min(Page.places(most), 6);
  return (usd) => {
    if (usd === null || usd === undefined) return "–";
    const value = Page.shown(usd);
    const least = 10 ** -places;
    return value !== 0 && Math.abs(value) < least / 2 ? `${value < 0 ? "-" : ""}<${Page.written(least, places)}` : Page.written(value, places);
  };
};
Page.money = (usd, text) => Page.h("span", { title: usd === null || usd === undefined ? null : `${usd} US dollars` }, text ?? Page.amount(usd));
Page.count = (number) => (number === null || number === undefined ? "–" : number.toLocaleString("en-US"));
Page.percent = (share) => (share === null || share === undefined || !Number.isFinite(share) ? "–" : share > 0 && share < 0.005 ? "<1 %" : `${Math.round(share * 100).toLocaleString("en-US")} %`);
Page.seconds = (seconds) => {
  if (seconds === null) return "–";
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
};
Page.plural = (number, word) => `${Page.count(number)} ${word}${number === 1 ? "" : "s"}`;

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
// "2026-11-26" as "26 Nov 2026"; of a year that need not be said, as "26 Nov".
Page.day = (iso, year = true) => {
  const [y, m, d] = iso.split("-");
  return `${Number(d)} ${MONTHS[Number(m) - 1]}${year ? ` ${y}` : ""}`;
};
Page.moment = (text) => (text === null ? "–" : `${Page.day(text.slice(0, 10), text.slice(0, 4) !== Page.year)} ${text.slice(11)}`);
Page.year = "";
// The name of a bar, short (for an axis) or whole.
Page.stretch = (label, short) => {
  if (/^\d{4}-W/.test(label)) return short ? label.slice(5) : `week ${label.slice(6)}, ${label.slice(0, 4)}`;
  if (/^\d{4}-\d\d$/.test(label)) return `${MONTHS[Number(label.slice(5)) - 1]} ${short ? label.slice(2, 4) : label.slice(0, 4)}`;
  if (label.length > 10) return short ? (label.endsWith("00:00") ? Page.day(label.slice(0, 10), false) : label.slice(11)) : `${Page.day(label.slice(0, 10), false)} ${label.slice(11)}`;
  return Page.day(label, !short);
};
Page.named = (name, dimension) => (name === null ? Page.h("span", { class: "nameless" }, `no ${dimension}`) : Page.h("bdi", null, name));
Page.scope = (text) => Page.h("bdi", null, text === "global" ? "everything (global)" : text);
