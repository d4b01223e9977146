// Pages work without this file. With it they stay up to date: on news, what differs in elements marked data-live is
// exchanged. What somebody types stays.
"use strict";
(() => {
  const page = document, scroller = page.scrollingElement, find = (id, at = page) => at.getElementById(id);
  const headers = { "X-Fragment": page.documentElement.lang }; // whatever was chosen meanwhile
  const who = find("tabs")?.dataset.who;
  const ask = async (url, more) => {
    const answer = await fetch(url, { headers, signal: AbortSignal.timeout?.(60000), ...more });
    return [answer, new DOMParser().parseFromString(await answer.text(), "text/html")];
  };
  const end = () => { scroller.scrollTop = scroller.scrollHeight; };
  const used = (box) => box.contains(page.activeElement) && box !== page.activeElement ||
    [...box.querySelectorAll("input, textarea, select")].some((field) => field === page.activeElement ||
      field.type !== "hidden" && "defaultValue" in field && field.value !== field.defaultValue);

  // Exchange what differs, but no part that somebody works in.
  const swap = (old, fresh) => {
    if (!fresh || old.isEqualNode(fresh)) return;
    if (!used(old)) { old.replaceWith(fresh); return; }
    for (const part of old.querySelectorAll("[id]")) swap(part, fresh.querySelector("#" + CSS.escape(part.id)));
    const list = old.querySelector("ul, ol"), longer = fresh.querySelector("ul, ol");
    if (list && longer) list.append(...[...longer.children].slice(list.children.length));
  };

  const show = (fresh) => {
    const low = scroller.scrollTop > 0 && scroller.scrollHeight - innerHeight - scroller.scrollTop < 90;
    for (const old of page.querySelectorAll("[data-live][id]:not(form)")) swap(old, find(old.id, fresh));
    if (low) end();
  };

  // A form marked data-auto sends itself.
  const auto = (fresh) => {
    const form = fresh.querySelector("form[data-auto]");
    if (form && !page.hidden) (find(form.id) || form).requestSubmit();
  };

  let running, again;
  const refresh = async () => {
    if (again = running) return;
    running = true;
    try {
      const [answer, fresh] = await ask(location.href);
      if ([401, 423].includes(answer.status) || answer.redirected || (find("tabs", fresh)?.dataset.who ?? who) !== who) {
        if (dispatchEvent(new Event("out", { cancelable: true }))) location.reload();
      } else if (answer.ok) { show(fresh); auto(fresh); }
    } catch { /* the node is away; the news come back with it */ }
    running = false;
    if (again) refresh();
  };

  // A form marked data-live is sent from within the page; an unusual answer becomes a plain page.
  page.addEventListener("submit", async (event) => {
    const { target: form, submitter } = event, { dataset } = form, { once, text } = form.elements, sent = text?.value;
    if (!("live" in dataset)) return;
    event.preventDefault();
    if (dataset.sending) return;
    dataset.sending = "1";
    find("away")?.remove();
    try {
      const url = submitter?.getAttribute("formaction") || form.action, body = new URLSearchParams(new FormData(form, submitter));
      const [answer, fresh] = await ask(url, { method: "POST", body });
      const main = find("main", fresh);
      if (answer.ok && new URL(answer.url).pathname === location.pathname) {
        if (text?.value === sent) form.reset(); // what was typed meanwhile stays
        once.value = fresh.querySelector("[name=once]").value;
        show(fresh);
        end();
      } else if (answer.ok) location.assign(answer.url);
      else if (main) find("main").replaceWith(main);
      else throw answer; // not ours
    } catch {
      const line = { id: "away", className: text ? "notice bad" : "told notice bad", role: "alert", textContent: page.body.dataset.away };
      if (submitter) (text ? form : page.body).prepend(Object.assign(page.createElement("p"), line));
    }
    delete dataset.sending;
  });

  page.addEventListener("focusin", ({ target }) => { if ("select" in target.dataset) target.select(); });
  addEventListener("news", refresh);
  auto(page);
})();
