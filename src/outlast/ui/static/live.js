// Pages work without this file. With it they stay up to date: the stream tells of a change, the page is fetched again,
// and the elements marked data-live that differ are exchanged. What somebody types stays.
"use strict";
(() => {
  const page = document, scroller = page.scrollingElement, headers = { "X-Fragment": "1" };
  const parse = (html) => new DOMParser().parseFromString(html, "text/html");
  const end = () => { scroller.scrollTop = scroller.scrollHeight; };
  const used = (box) => box.contains(page.activeElement) && box !== page.activeElement ||
    [...box.querySelectorAll("input, textarea, select")].some((field) => field === page.activeElement ||
      field.type !== "hidden" && "defaultValue" in field && field.value !== field.defaultValue);

  // Exchange what differs, but no part that somebody works in.
  const swap = (old, fresh) => {
    if (old.isEqualNode(fresh)) return;
    if (!used(old)) { old.replaceWith(fresh); return; }
    for (const part of old.querySelectorAll("[id]")) {
      const other = fresh.querySelector("#" + CSS.escape(part.id));
      if (other && !used(part) && !part.isEqualNode(other)) part.replaceWith(other);
    }
    const list = old.querySelector("ul, ol"), longer = fresh.querySelector("ul, ol");
    if (list && longer) list.append(...[...longer.children].slice(list.children.length));
  };

  const show = (html) => {
    const fresh = parse(html);
    const low = scroller.scrollTop > 0 && scroller.scrollHeight - innerHeight - scroller.scrollTop < 90;
    for (const old of page.querySelectorAll("[data-live][id]:not(form)")) {
      const other = fresh.getElementById(old.id);
      if (other) swap(old, other);
    }
    if (low) end();
    return fresh;
  };

  let running = false, again = false;
  const refresh = async () => {
    if (running) { again = true; return; }
    running = true;
    try {
      const answer = await fetch(location.href, { headers, cache: "no-store" });
      if ([401, 423].includes(answer.status) || answer.redirected) {
        if (dispatchEvent(new Event("out", { cancelable: true }))) location.reload();
      } else if (answer.ok) auto(show(await answer.text()));
    } catch { /* the node is away; the stream comes back with it */ }
    running = false;
    if (again) { again = false; refresh(); }
  };

  // A form marked data-auto sends itself.
  const auto = (fresh) => {
    const form = fresh.querySelector("form[data-auto]");
    if (form && !page.hidden) (form.id && page.getElementById(form.id) || form).requestSubmit();
  };

  // A form marked data-live is sent from within the page, never twice; an unusual answer becomes a plain page.
  page.addEventListener("submit", async (event) => {
    const form = event.target, main = page.getElementById("main");
    if (!("live" in form.dataset)) return;
    event.preventDefault();
    if (form.dataset.sending) return;
    form.dataset.sending = "1";
    try {
      const body = new FormData(form, event.submitter);
      const answer = await fetch(event.submitter?.getAttribute("formaction") || form.action, { method: "POST", headers, body: new URLSearchParams(body) });
      const html = await answer.text(), fresh = parse(html).getElementById("main");
      if (answer.ok && new URL(answer.url).pathname === location.pathname) {
        form.reset();
        show(html);
        end();
      } else if (answer.ok) location.assign(answer.url);
      else if (fresh) main.replaceWith(fresh);
      else throw answer; // not ours
    } catch {
      const line = page.getElementById("away") || main.appendChild(page.createElement("p"));
      Object.assign(line, { id: "away", className: "notice bad", textContent: page.body.dataset.away });
    }
    delete form.dataset.sending;
  });

  page.addEventListener("focusin", ({ target }) => { if ("select" in target.dataset) target.select(); });
  if (page.body.dataset.events) {
    const news = new EventSource(page.body.dataset.events);
    news.addEventListener("fragment", refresh);
    news.onerror = () => { if (news.readyState === 2) refresh(); };
  }
  auto(page);
})();
