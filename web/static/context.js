// A sentence is widened where it stands; without this the link leads to a page of its own.
import { read } from "./page.js";

addEventListener("click", async (event) => {
  const link = event.target.closest(".wider");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  try {
    const around = document.adoptNode((await read(link.href)).getElementById("around"));
    around.removeAttribute("id"); // there may be several
    link.closest(".read, .around").replaceWith(around);
    around.focus({ preventScroll: true });
  } catch {
    location.href = link.href;
  }
});
