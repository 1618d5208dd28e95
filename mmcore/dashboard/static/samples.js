// The gallery by keyboard, and pictures that cannot be had.
"use strict";
(() => {
  document.documentElement.classList.add("has-script");

  const links = () => [...document.querySelectorAll(".gallery .sample-link")];
  // how many cards stand side by side: those whose top is that of the first
  function numColumns(cards) {
    const top = cards[0].getBoundingClientRect().top;
    return Math.max(1, cards.findIndex((card) => card.getBoundingClientRect().top > top + 1));
  }
  function move(key) {
    const cards = links();
    if (!cards.length) return false;
    const now = cards.indexOf(document.activeElement);
    if (now < 0) { cards[0].focus(); return true; }
    const column = numColumns(cards);
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: column, ArrowUp: -column }[key];
    const next = cards[now + by];
    if (!next) return false;
    next.focus();
    return true;
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input,textarea,select,audio,video,dialog[open]")) return;
    if (event.key.startsWith("Arrow") && document.querySelector(".gallery")) {
      if (move(event.key)) event.preventDefault();
    } else if (event.key === "ArrowRight" || event.key === "n") document.querySelector('a[rel="next"]')?.click();
    else if (event.key === "ArrowLeft" || event.key === "p") document.querySelector('a[rel="prev"]')?.click();
  });

  // A picture that the server cannot give says so in its place.
  document.addEventListener("error", (event) => {
    const image = event.target;
    if (!(image instanceof HTMLImageElement) || !image.matches(".picture")) return;
    const note = document.createElement("span");
    note.className = "no-picture";
    note.textContent = "This picture cannot be read";
    image.replaceWith(note);
  }, true);

  // One player at a time.
  document.addEventListener("play", (event) => {
    for (const other of document.querySelectorAll("audio, video")) if (other !== event.target) other.pause();
  }, true);

  // The chips keep their words and filters in step with the form, which changes without a new page.
  document.addEventListener("htmx:pushedIntoHistory", () => {
    const asked = new URLSearchParams(location.search);
    asked.delete("after");
    asked.delete("before");
    for (const chip of document.querySelectorAll("[data-status]")) {
      const wanted = new URLSearchParams(asked);
      wanted.delete("status");
      if (chip.dataset.status) wanted.set("status", chip.dataset.status);
      chip.href = `${location.pathname}${wanted.size ? `?${wanted}` : ""}`;
    }
    for (const select of document.querySelectorAll("#filters select")) {
      select.classList.toggle("is-chosen", select.value !== "");
    }
  });
  // Names without a value would make long addresses.
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.target.id !== "filters") return;
    for (const [name, value] of Object.entries(event.detail.parameters)) {
      if (value === "") delete event.detail.parameters[name];
    }
  });
})();
