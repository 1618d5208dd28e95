// What pages need beyond htmx: theme, keys, times that stay current, copying, live fragments.
// Nothing here makes HTML out of data: text goes in by textContent, HTML comes from our server.
"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const csrf = () => one('meta[name="csrf-token"]').content;

  // Posting: htmx carries the token of the page, and so does mm.post().
  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["X-CSRF-Token"] = csrf();
  });
  // An answer that says what went wrong is shown, not swallowed.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.status >= 400 && event.detail.xhr.status !== 401) {
      toast(event.detail.xhr.statusText || "That did not work", true);
    }
  });
  // A part of the page that is replaced keeps the focus: on the same id, or the same address.
  let focused = "";
  const keepFocus = (part) => {
    const active = document.activeElement;
    if (!part.contains(active)) focused = "";
    else if (active.id) focused = `#${CSS.escape(active.id)}`;
    else focused = active.hasAttribute("href") ? `a[href="${CSS.escape(active.getAttribute("href"))}"]` : "";
  };
  const restoreFocus = () => {
    if (focused) one(focused)?.focus({ preventScroll: true });
  };
  document.addEventListener("htmx:beforeSwap", (event) => keepFocus(event.detail.target));
  document.addEventListener("htmx:afterSwap", restoreFocus);
  document.addEventListener("htmx:sendError", () => toast("The dashboard does not answer", true));

  function toast(text, isFailed = false) {
    const element = document.createElement("div");
    element.className = isFailed ? "toast is-failed" : "toast";
    element.textContent = text;
    one("[data-toasts]").append(element);
    setTimeout(() => element.remove(), 5000);
  }

  async function post(address, fields = {}) {
    return fetch(address, {
      method: "POST",
      headers: { "X-CSRF-Token": csrf(), "Content-Type": "application/x-www-form-urlencoded" },
      body: new URLSearchParams(fields),
    });
  }

  // Times
  function roughly(seconds) {
    if (seconds < 60) return `${Math.round(seconds)} s`;
    if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
    if (seconds < 2 * 86400) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} days`;
  }
  function refreshTimes() {
    for (const element of all("time[datetime]:not([data-fixed])")) {
      const seconds = (Date.now() - Date.parse(element.dateTime)) / 1000;
      if (Number.isNaN(seconds)) continue;
      const amount = roughly(Math.abs(seconds));
      const text = Math.abs(seconds) < 5 ? "just now" : seconds > 0 ? `${amount} ago` : `in ${amount}`;
      if (element.textContent !== text) element.textContent = text;
    }
  }
  setInterval(refreshTimes, 10000);

  // Theme: auto, or what was chosen; a cookie, so that the next page is painted right at once
  function toggleTheme() {
    const root = document.documentElement;
    const isDark = getComputedStyle(root).colorScheme === "dark";
    root.dataset.theme = isDark ? "light" : "dark";
    document.cookie = `mm_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
    document.dispatchEvent(new CustomEvent("mm:theme"));
  }

  // One listener for every click
  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-theme-toggle],[data-help-toggle],[data-copy],[data-open],[data-close],[data-filter]");
    if (!target) return;
    if (target.matches("[data-theme-toggle]")) toggleTheme();
    else if (target.matches("[data-help-toggle]")) one("[data-help]").showModal();
    else if (target.matches("[data-copy]")) copy(target);
    else if (target.matches("[data-open]")) one(`#${CSS.escape(target.dataset.open)}`).showModal();
    else if (target.matches("[data-close]")) target.closest("dialog").close();
    else if (target.matches("[data-filter]")) filter(target);
  });
  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      const code = one("code", button.parentElement);
      if (code) getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }
  // data-filter="log:warning": sets data-show of the element with the id
  function filter(button) {
    const [id, value] = button.dataset.filter.split(":");
    one(`#${CSS.escape(id)}`).dataset.show = value;
    for (const other of all("[data-filter]", button.parentElement)) {
      other.setAttribute("aria-pressed", String(other === button));
    }
  }

  // Keys
  let pendingG = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input,textarea,select,[contenteditable],dialog[open]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (pendingG && Date.now() - pendingG < 1200) {
      pendingG = 0;
      const link = one(`.nav a[data-key="${CSS.escape(event.key)}"]`);
      if (link) { event.preventDefault(); link.click(); }
      return;
    }
    if (event.key === "g") pendingG = Date.now();
    else if (event.key === "/") { const box = one("[data-search]"); if (box) { event.preventDefault(); box.focus(); box.select(); } }
    else if (event.key === "?") one("[data-help]")?.showModal();
    else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
  });
  function move(by) {
    const rows = all("[data-row]").filter((row) => row.offsetParent !== null);
    if (!rows.length) return;
    const now = rows.findIndex((row) => row.contains(document.activeElement));
    const next = rows[Math.max(0, Math.min(rows.length - 1, now < 0 ? (by > 0 ? 0 : rows.length - 1) : now + by))];
    const link = next.matches("a") ? next : one("a", next);
    link?.focus();
    next.scrollIntoView({ block: "nearest" });
  }

  // Live: <div data-live="/address" data-live-done="reload"> with elements data-live-part="name"
  function goLive(element) {
    const source = new EventSource(element.dataset.live);
    const names = new Set(all("[data-live-part]", element).map((part) => part.dataset.livePart));
    for (const name of names) {
      source.addEventListener(name, (event) => {
        const part = one(`[data-live-part="${CSS.escape(name)}"]`, element);
        keepFocus(part);
        if (part.dataset.liveAppend === undefined) part.innerHTML = event.data;
        else append(part, event.data);
        if (window.htmx) window.htmx.process(part);
        restoreFocus();
        document.dispatchEvent(new CustomEvent("mm:part"));
      });
    }
    source.addEventListener("end", () => {
      source.close();
      element.dataset.liveState = "ended";
      if (element.dataset.liveDone === "reload") location.reload();
    });
    source.onopen = () => { element.dataset.liveState = "open"; };
    source.onerror = () => { element.dataset.liveState = source.readyState === EventSource.CLOSED ? "lost" : "waiting"; };
    addEventListener("pagehide", () => source.close(), { once: true });
  }
  function append(part, html) {
    const box = part.closest("[data-scroll]") || part;
    const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    part.insertAdjacentHTML("beforeend", html);
    one("[data-log-empty]", box)?.remove();
    while (part.childElementCount > 2000) part.firstElementChild.remove();
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }

  window.mm = { post, toast, refreshTimes };
  document.addEventListener("htmx:afterSwap", refreshTimes);
  for (const element of all("[data-live]")) goLive(element);
  for (const box of all("[data-scroll]")) box.scrollTop = box.scrollHeight;
  one(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  document.documentElement.dataset.ready = "";
})();
