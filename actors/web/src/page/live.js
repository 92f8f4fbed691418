"use strict";
// One stream of events for all pages of a browser: it allows few connections to a host, and each tab would take one.

let source = null;
const pages = new Map();
// The last picture of the tree and of the line, for pages that come later.
const last = {};
const PAGE_GONE = 30000;

function tell(name, data) {
  if (name === "tree" || name === "line") last[name] = data;
  for (const page of pages.keys()) page.postMessage([name, data]);
}

function listen() {
  if (source && source.readyState !== EventSource.CLOSED) return;
  source = new EventSource("api/live");
  for (const name of ["tree", "message", "log", "crash", "alarm"]) source.addEventListener(name, (e) => tell(name, e.data));
  source.onopen = () => tell("line", true);
  source.onerror = () => tell("line", false);
}

function prune() {
  for (const [page, seen] of pages) if (Date.now() - seen > PAGE_GONE) pages.delete(page);
  if (pages.size === 0 && source) { source.close(); source = null; delete last.tree; }
}
setInterval(prune, PAGE_GONE / 3);

onconnect = ({ ports: [page] }) => {
  page.onmessage = ({ data: here }) => {
    if (!here) { pages.delete(page); prune(); return; }
    if (!pages.has(page)) for (const [name, data] of Object.entries(last)) page.postMessage([name, data]);
    pages.set(page, Date.now());
    listen();
  };
};
