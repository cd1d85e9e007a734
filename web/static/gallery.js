// j and k move from ortho to ortho; words are completed from the vocabulary.
import { writes } from "./page.js";

addEventListener("keydown", (event) => {
  const step = { j: 1, k: -1 }[event.key];
  if (!step || writes(event)) return;
  const all = [...document.querySelectorAll(".card .open")];
  const at = all.indexOf(document.activeElement);
  const to = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step];
  if (!to) return;
  to.focus({ preventScroll: true });
  to.closest(".card").scrollIntoView({ block: "nearest" });
});

const form = document.querySelector("[data-complete]");
for (const input of form?.querySelectorAll("#contains, #starts_with") ?? []) {
  const list = document.createElement("datalist");
  list.id = `${input.id}-words`;
  input.after(list);
  input.setAttribute("list", list.id);
  let asked = 0;
  input.addEventListener("input", async () => {
    const mine = ++asked;
    await new Promise((done) => setTimeout(done, 120));
    if (mine !== asked || !input.value.trim()) return;
    const answer = await fetch(`${form.dataset.complete}?q=${encodeURIComponent(input.value)}`).catch(() => null);
    if (!answer?.ok || mine !== asked) return;
    const found = await answer.json();
    list.replaceChildren(...found.map((word) => Object.assign(document.createElement("option"), { value: word })));
  });
}

// Fields that are empty do not stand in the address.
form?.addEventListener("submit", () => {
  for (const each of form.elements) if (each.name && !each.value) each.disabled = true;
});
addEventListener("pageshow", () => {
  for (const each of form?.elements ?? []) each.disabled = false;
});
