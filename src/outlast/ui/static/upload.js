// Forms with a file work without this file. With it they show how much has left, then that the node works on it.
"use strict";
document.addEventListener("submit", (event) => {
  const form = event.target, page = document;
  if (form.enctype !== "multipart/form-data") return;
  event.preventDefault();
  if (form.dataset.sending) return;
  form.dataset.sending = "1";
  page.getElementById("away")?.remove();
  const call = new XMLHttpRequest(), bar = form.appendChild(page.createElement("progress"));
  bar.setAttribute("aria-label", form.querySelector("h2, button").textContent);
  call.upload.onprogress = ({ loaded, total }) => {
    if (loaded < total) Object.assign(bar, { max: total, value: loaded }); else bar.removeAttribute("value");
  };
  call.onloadend = () => { delete form.dataset.sending; bar.remove(); };
  call.onload = () => {
    const main = new DOMParser().parseFromString(call.responseText, "text/html").getElementById("main");
    if (main && call.responseURL === form.action) page.getElementById("main").replaceWith(main);
    else location.assign(call.responseURL);
  };
  call.onerror = () => {
    const line = form.appendChild(page.createElement("p"));
    Object.assign(line, { id: "away", className: "notice bad", role: "alert", textContent: page.body.dataset.away });
  };
  call.open("POST", form.action);
  call.setRequestHeader("X-Fragment", page.documentElement.lang);
  call.send(new FormData(form, event.submitter));
});
