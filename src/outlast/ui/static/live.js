// Pages work without this file. With it they stay up to date: the stream says that something changed, the page is
// fetched again, and only elements marked data-live that differ are exchanged. What is being typed stays.
"use strict";
(() => {
  const page = document, scroller = page.scrollingElement, headers = { "X-Fragment": "1" };
  const parse = (html) => new DOMParser().parseFromString(html, "text/html");
  const busy = (box) => [...box.querySelectorAll("input, textarea, select")].some((field) =>
    field === page.activeElement || (field.type !== "hidden" && "defaultValue" in field && field.value !== field.defaultValue));

  // Exchange `old` for `fresh` where they differ, from the outside in; a part that somebody works in is kept.
  const swap = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (old.id && (busy(old) || old.contains(page.activeElement))) {
      for (const part of old.querySelectorAll("[id]")) {
        const other = fresh.querySelector("#" + CSS.escape(part.id));
        if (other && !busy(part) && !part.contains(page.activeElement) && !part.isEqualNode(other)) part.replaceWith(other);
      }
      const list = old.querySelector("ul, ol"), longer = fresh.querySelector("ul, ol");
      if (list && longer && list.children.length < longer.children.length)
        list.append(...[...longer.children].slice(list.children.length));
      return;
    }
    old.replaceWith(fresh);
  };

  const show = (html) => {
    const fresh = parse(html);
    const atEnd = scroller.scrollHeight - scroller.clientHeight - scroller.scrollTop < 90 && scroller.scrollTop > 0;
    for (const old of page.querySelectorAll("[data-live][id]:not(form)")) {
      const other = fresh.getElementById(old.id);
      if (other) swap(old, other);
    }
    if (atEnd) scroller.scrollTop = scroller.scrollHeight;
  };

  let running = false, again = false;
  const refresh = async () => {
    if (running) { again = true; return; }
    running = true;
    try {
      const answer = await fetch(location.href, { headers, cache: "no-store" });
      if (answer.status === 401 || answer.status === 423 || answer.redirected) location.reload();
      else if (answer.ok) show(await answer.text());
    } catch { /* the node is away; the stream comes back with it */ }
    running = false;
    if (again) { again = false; refresh(); }
  };

  const stream = page.body.dataset.events;
  if (stream) {
    const news = new EventSource(stream);
    let lost = false;
    news.addEventListener("fragment", refresh);
    news.onopen = () => { if (lost) refresh(); lost = false; };
    news.onerror = () => { lost = true; if (news.readyState === 2) refresh(); };
  }

  // A form marked data-live is sent from within the page; an unusual answer becomes a plain page. It is never sent twice.
  page.addEventListener("submit", async (event) => {
    const form = event.target, main = page.getElementById("main");
    if (!("live" in form.dataset)) return;
    event.preventDefault();
    if (form.dataset.sending) return;
    form.dataset.sending = "1";
    try {
      const body = new FormData(form, event.submitter);
      const plain = form.enctype !== "multipart/form-data";
      const answer = await fetch(form.action, { method: "POST", headers, body: plain ? new URLSearchParams(body) : body });
      const html = await answer.text();
      if (answer.ok && new URL(answer.url).pathname === location.pathname) {
        form.reset();
        show(html);
        scroller.scrollTop = scroller.scrollHeight;
      } else if (answer.ok) location.assign(answer.url);
      else main.replaceWith(parse(html).getElementById("main"));
    } catch {
      const line = main.querySelector("#away") || main.appendChild(page.createElement("p"));
      Object.assign(line, { id: "away", className: "notice bad", textContent: page.body.dataset.away });
    }
    delete form.dataset.sending;
  });

  page.addEventListener("focusin", ({ target }) => { if ("select" in (target.dataset || {})) target.select(); });
  page.querySelector("form[data-auto]")?.requestSubmit();
})();
