// What somebody types is kept on the node a moment after they pause; the page hears of news, its title counts what is new,
// and it tells of it: never who wrote, or what.
"use strict";
(() => {
  const page = document;
  let timer, typed, keeping;
  const keep = () => {
    const { csrf, text } = typed.elements, body = new URLSearchParams({ csrf: csrf.value, text: text.value });
    const how = { method: "POST", body, keepalive: true, signal: AbortSignal.timeout?.(5000) };
    keeping = fetch(typed.dataset.draft, how).catch(() => {}).then(() => { keeping = null; });
    timer = 0;
  };
  const later = () => { timer = setTimeout(() => keeping || typed.dataset.sending ? later() : keep(), 1000); };
  page.addEventListener("input", ({ target }) => {
    if (target.name !== "text" || !target.form?.dataset.draft) return;
    clearTimeout(timer);
    typed = target.form;
    later();
  });
  page.addEventListener("submit", (event) => {
    const { target, submitter } = event, area = target.dataset.draft && target.elements.text;
    if (!area) return;
    clearTimeout(timer);
    timer = 0;
    if (keeping) { // a draft that came after its message would bring it back
      event.preventDefault();
      event.stopImmediatePropagation();
      return keeping.then(() => target.requestSubmit(submitter));
    }
    const text = area.value; // once sent, the form is emptied, not brought back to the draft it began with
    area.defaultValue = "";
    area.value = text;
  }, true);
  addEventListener("pagehide", () => { if (timer) keep(); });

  // Shut out, the page goes. What was typed is kept all the same, or comes back on the page that tells why not.
  addEventListener("out", (event) => {
    const form = page.querySelector("form[data-draft]"), action = form?.action;
    if (!form?.elements.text.value) return;
    event.preventDefault();
    timer = clearTimeout(timer);
    form.action = form.dataset.draft;
    form.submit();
    form.action = action;
  });

  // Where no stream can be had, the page looks every now and then, and whenever somebody comes back to it.
  const look = () => dispatchEvent(new Event("news"));
  const listen = () => {
    const news = new EventSource(page.body.dataset.events);
    news.addEventListener("fragment", look);
    news.onerror = () => { if (news.readyState === 2) { look(); setTimeout(listen, 20000); } };
  };
  if (page.body.dataset.events) {
    // While somebody looks at this page, hidden ones tell of nothing.
    let leave;
    const hold = () => {
      leave?.();
      if (!page.hidden) navigator.locks?.request("outlast", { mode: "shared" }, () => new Promise((go) => { leave = go; }));
    };
    page.addEventListener("visibilitychange", () => { hold(); if (!page.hidden) look(); });
    hold();
    listen();
  }

  const bar = () => page.getElementById("tabs")?.dataset ?? {}, told = page.getElementById("told");
  const bare = page.title.slice(bar().mark?.length);
  let count = +bar().count;
  const notify = async (text) => {
    if (!page.hidden || Notification.permission !== "granted") return;
    if (!(await navigator.locks.query()).held.length) new Notification(text, { tag: "outlast" });
  };
  const tell = () => {
    const now = +bar().count, { news: text, mark } = bar();
    if (now === count) return;
    page.title = mark + bare;
    const read = !page.hidden && page.querySelector("[form=seen]"); // it stands open, and is being marked as read
    if (now > count && text && !read) {
      told.textContent = text;
      setTimeout(() => { told.textContent = ""; }, 8000);
      notify(text).catch(() => { /* this browser has none, or only for pages that it keeps running */ });
    }
    count = now;
  };
  if (told) new MutationObserver(tell).observe(page.body, { childList: true, subtree: true });

  const ask = page.querySelector("[data-notify]");
  if (ask && self.isSecureContext && self.Notification?.permission === "default") {
    ask.hidden = false;
    ask.addEventListener("click", async () => { ask.hidden = await Notification.requestPermission() !== "default"; });
  }
})();
