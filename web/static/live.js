// Follows the events of what is on the page, and then reads the page again: the server renders it, here parts are replaced.
import { read } from "./page.js";

const PAUSE = 1500;

async function refresh() {
  const fresh = await read(location.href);
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now || now.isEqualNode(old)) continue;
    const held = old.contains(document.activeElement) ? document.activeElement : null;
    const same = held && [...now.querySelectorAll(held.localName)].find((each) => alike(each, held));
    if (held && !same) continue; // who is on it keeps it
    const open = new Set([...old.querySelectorAll("details[open] > summary")].map((each) => each.textContent));
    const adopted = document.adoptNode(now);
    for (const each of adopted.querySelectorAll("details > summary")) each.parentNode.open = open.has(each.textContent);
    const before = tag(old);
    old.replaceWith(adopted);
    same?.focus({ preventScroll: true });
    if (tag(adopted) !== before) said.textContent = adopted.querySelector(".state")?.innerText ?? "";
  }
}

const alike = (one, other) => one.textContent === other.textContent && one.getAttribute("href") === other.getAttribute("href");
const tag = (of) => of.querySelector(".state .tag")?.textContent;

// Screen readers hear of another state, not of each number: what is replaced as a whole says nothing by itself.
const said = Object.assign(document.createElement("p"), { className: "visually-hidden" });
said.setAttribute("aria-live", "polite");
document.body.append(said);

// The stream ends after a minute; then, and when the page is seen again, a new one begins with the state as it is.
async function follow(address, changed) {
  let seen = document.querySelector(".state .busy") ? "" : null; // what is busy may have changed before we listen
  for (;;) {
    await visible();
    try {
      const answer = await fetch(address, { headers: { Accept: "text/event-stream" } });
      if (answer.status === 503 || answer.status === 429) throw answer.status;
      if (!answer.ok) return;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const events = (rest + part.value).split("\n\n");
        rest = events.pop();
        const last = events.filter((each) => each.startsWith("event: progress")).pop();
        if (last !== undefined && last !== seen) {
          if (seen !== null) await changed();
          seen = last;
        }
        if (document.hidden) { await reader.cancel(); break; }
      }
    } catch { /* it is away, or busy: try again later */ }
    await new Promise((done) => setTimeout(done, 2 * PAUSE));
  }
}

function visible() {
  return new Promise((done) => {
    if (!document.hidden) return done();
    document.addEventListener("visibilitychange", () => done(), { once: true });
  });
}

const live = document.querySelector("[data-events]");
if (live) {
  let last = 0;
  const changed = async () => {
    await new Promise((done) => setTimeout(done, Math.max(0, last + PAUSE - Date.now())));
    last = Date.now();
    await refresh().catch(() => {});
  };
  follow(live.dataset.events, changed);
  // What goes on inside of a piece of work is no event.
  const busy = () => !document.hidden && document.querySelector("[data-every] .busy");
  if (live.dataset.every) setInterval(() => busy() && changed(), 1000 * live.dataset.every);
}

// What no event tells of is read again every so many seconds, while somebody looks.
async function again(pause) {
  for (;;) {
    await new Promise((done) => setTimeout(done, pause));
    await visible();
    await refresh().catch(() => {});
  }
}

const regular = document.querySelector("[data-every]:not([data-events])");
if (regular) again(1000 * regular.dataset.every);
