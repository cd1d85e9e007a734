// What every page has. Pages work without it.

for (const each of document.querySelectorAll("[data-only-with-script]")) each.hidden = false;

// Chooses all rows of a table, or none.
for (const all of document.querySelectorAll("[data-all]")) all.addEventListener("change", () => {
  for (const each of all.closest("table").querySelectorAll("input[name=work]")) each.checked = all.checked;
});

// A second click sends nothing again: the answer to the first one would not be shown.
addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.method !== "post") return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "1";
  setTimeout(() => delete form.dataset.sent, 5000);
});
addEventListener("pageshow", () => { for (const each of document.querySelectorAll("form[data-sent]")) delete each.dataset.sent; });

// "/" goes to the search, unless somebody writes.
export function writes(event) {
  return event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable]");
}

// Another page as a document, in which no script runs; no text becomes HTML here.
export function read(address) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("GET", address);
    request.responseType = "document";
    request.onload = () => (request.status === 200 && request.response ? done(request.response) : failed(request.status));
    request.onerror = () => failed(0);
    request.send();
  });
}

addEventListener("keydown", (event) => {
  const search = document.querySelector("[data-search]");
  if (event.key === "/" && search && !writes(event)) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});
