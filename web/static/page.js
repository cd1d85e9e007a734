// What every page has. Pages work without it.

for (const each of document.querySelectorAll("[data-only-with-script]")) each.hidden = false;

// "/" goes to the search, unless somebody writes.
export function writes(event) {
  return event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable]");
}

addEventListener("keydown", (event) => {
  const search = document.querySelector("[data-search]");
  if (event.key === "/" && search && !writes(event)) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});
