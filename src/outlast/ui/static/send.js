// Sends a file in parts, and goes on where it was cut, also after the page was closed. Without it a plain form does.
"use strict";
document.addEventListener("submit", (event) => {
  const form = event.target, page = document, { begin, part, after, cut } = form.dataset;
  if (!begin) return;
  const field = [...form.querySelectorAll("input[type=file]")].find((one) => one.files.length), file = field?.files[0];
  event.preventDefault();
  if (!file) { form.querySelector("input[type=file]").focus(); return; }
  if (form.dataset.sending) return;
  form.dataset.sending = "1";
  const bar = form.appendChild(page.createElement("progress")), line = form.appendChild(page.createElement("p"));
  line.setAttribute("role", "status");
  bar.setAttribute("aria-label", file.name);
  const csrf = form.elements.csrf.value, wait = (s) => new Promise((go) => setTimeout(go, s * 1000));
  const show = (held) => {
    Object.assign(bar, { max: file.size || 1, value: held });
    line.textContent = `${Math.floor(100 * held / (file.size || 1))} %`;
  };
  const said = (html) => new DOMParser().parseFromString(html, "text/html").querySelector("[role=alert]")?.textContent;
  // One request; the answer, or nothing when the node is away.
  const call = (url, fields, held) => new Promise((done) => {
    const request = new XMLHttpRequest(), body = new FormData();
    for (const [name, value] of Object.entries(fields || {})) body.append(name, value);
    request.upload.onprogress = ({ loaded }) => { if (held >= 0) show(Math.min(file.size, held + loaded)); };
    request.onloadend = () => {
      try { done({ status: request.status, ...JSON.parse(request.responseText) }); }
      catch { done(request.status ? { status: request.status, error: said(request.responseText) } : null); }
    };
    request.open(fields ? "POST" : "GET", url);
    request.timeout = 90000;
    request.send(fields ? held >= 0 ? body : new URLSearchParams(body) : null);
  });
  (async () => {
    let told = null, pause = 1;
    const mark = `${file.lastModified}`, first = { csrf, name: file.name, size: file.size, mark };
    while (!told || told.held < file.size) {
      const held = told?.held;
      const answer = !told ? await call(begin, first)
        : told.lost ? await call(told.at)
        : await call(told.at, { csrf, start: held, part: file.slice(held, held + +part) }, held);
      if (!answer || answer.status === 409 || answer.status >= 500) {
        line.textContent = cut;
        if (told) told.lost = true;
        await wait(pause = Math.min(30, pause * 1.5));
        continue;
      }
      if (answer.status !== 200 && !answer.error) return location.reload(); // shut out: the page says so
      if (answer.status !== 200) throw new Error(answer.error);
      told = answer;
      pause = 1;
      show(told.held);
    }
    location.assign(after);
  })().catch((error) => {
    bar.remove();
    Object.assign(line, { className: "notice bad", textContent: error.message });
    line.setAttribute("role", "alert");
    delete form.dataset.sending;
  });
});
