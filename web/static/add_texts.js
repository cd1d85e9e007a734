// Files can be dropped, and the estimate comes without a new page, so chosen files stay.

const form = document.querySelector("[data-add-texts]"), drop = form.querySelector("[data-drop]"), files = form.elements.files;

for (const kind of ["dragover", "dragleave", "drop"])
  drop.addEventListener(kind, (event) => {
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "dragleave") return;
    event.preventDefault();
    if (kind === "drop" && event.dataTransfer.files.length) files.files = event.dataTransfer.files;
  });

form.addEventListener("submit", (event) => {
  if (event.submitter?.value !== "estimate") return;
  event.preventDefault();
  const sent = new FormData(form, event.submitter), button = event.submitter;
  button.disabled = true;
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.responseType = "document"; // in which no script runs; no text becomes HTML here
  request.onloadend = () => {
    button.disabled = false;
    const fresh = request.response;
    const now = fresh?.querySelector("#estimate");
    document.getElementById("problem")?.remove();
    if (!now) {
      const said = Object.assign(document.createElement("p"), { className: "problem", id: "problem" });
      said.textContent = fresh?.querySelector("main .lead")?.textContent ?? "The server does not answer. Try again.";
      said.setAttribute("role", "alert");
      return form.before(said);
    }
    const problem = fresh.getElementById("problem");
    if (problem) form.before(document.adoptNode(problem));
    for (const each of now.querySelectorAll("[data-without-script]")) each.remove();
    document.getElementById("estimate").replaceChildren(...document.adoptNode(now).childNodes);
  };
  request.send(sent);
});
