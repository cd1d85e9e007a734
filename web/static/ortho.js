// Copy, a picture, and the cells of the line that one looks at.

const text = document.getElementById("as-text").textContent;
const copy = document.querySelector("[data-copy]");
copy.addEventListener("click", async () => {
  await navigator.clipboard.writeText(text);
  copy.textContent = "Copied";
  setTimeout(() => (copy.textContent = "Copy as text"), 2000);
});

const cells = new Map([...document.querySelectorAll("#ortho td")].map((each) => [each.dataset.cell, each]));
for (const line of document.querySelectorAll("[data-cells]")) {
  const mine = line.dataset.cells.split(" ").map((number) => cells.get(number));
  const light = (on) => mine.forEach((cell) => cell.classList.toggle("lit", on));
  for (const [event, on] of [["mouseenter", true], ["mouseleave", false], ["focusin", true], ["focusout", false]])
    line.addEventListener(event, () => light(on));
}

// As it is on the page, in its theme: each cell where the browser has placed it.
function drawn(scale = 2, margin = 16) {
  const box = document.querySelector("#ortho .layers"), all = box.getBoundingClientRect();
  const [left, top] = [all.left - margin, all.top - margin];
  const right = Math.max(...[...cells.values()].map((cell) => cell.getBoundingClientRect().right));
  const canvas = document.createElement("canvas");
  canvas.width = scale * (right - left + margin);
  canvas.height = scale * (all.height + 2 * margin);
  const to = canvas.getContext("2d"), page = getComputedStyle(document.body);
  to.scale(scale, scale);
  to.fillStyle = page.backgroundColor;
  to.fillRect(0, 0, canvas.width, canvas.height);
  to.textAlign = "center";
  to.textBaseline = "middle";
  for (const cell of cells.values()) {
    const at = cell.getBoundingClientRect(), style = getComputedStyle(cell);
    to.strokeStyle = style.borderTopColor;
    to.strokeRect(at.left - left, at.top - top, at.width, at.height);
    to.fillStyle = style.color;
    to.font = `${style.fontSize} ${style.fontFamily}`;
    to.fillText(cell.textContent, at.left - left + at.width / 2, at.top - top + at.height / 2, at.width - 4);
  }
  return canvas;
}

const png = document.querySelector("[data-png]");
png.addEventListener("click", () => {
  drawn().toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: png.dataset.png });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
});
