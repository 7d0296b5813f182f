// A text field that searches: the combobox pattern of WAI-ARIA with a list of options.

import { debounced, make } from "./dom.js";

const WAIT = 150; // milliseconds after the last key

/**
 * Makes a field search.
 *
 * input, listbox, note: elements; the note says how many options there are.
 * search(text, signal): promise of options {id, label, detail}.
 * choose(option): called when one is chosen.
 * failed(error): called when a search fails.
 */
export function combobox({ input, listbox, note, search, choose, failed }) {
  let options = [];
  let active = -1;
  let controller = null; // of the search under way
  let wantsFirst = false; // Enter came before the answer

  const look = debounced(WAIT, async () => {
    controller?.abort();
    const mine = (controller = new AbortController());
    try {
      const found = await search(input.value.trim(), mine.signal);
      if (mine === controller) show(found);
    } catch (error) {
      if (error.name !== "AbortError") failed(error);
    } finally {
      if (mine === controller) controller = null;
    }
  });

  function show(found) {
    options = found;
    if (wantsFirst && found.length) {
      pick(0);
      return;
    }
    wantsFirst = false;
    listbox.replaceChildren(...found.map(row));
    note.textContent = found.length ? "" : "Nothing is found.";
    const open = found.length > 0 && document.activeElement === input;
    listbox.hidden = !open;
    input.setAttribute("aria-expanded", open);
    move(open ? 0 : -1);
  }

  function row({ label, detail }, index) {
    const attributes = { role: "option", "aria-selected": "false" };
    const option = make("li", { id: `${listbox.id}-${index}`, attributes }, make("span", {}, label));
    if (detail) option.append(" ", make("span", { className: "id" }, detail));
    option.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
    option.addEventListener("click", () => pick(index));
    return option;
  }

  function move(index) {
    listbox.children[active]?.setAttribute("aria-selected", "false");
    active = index;
    const option = listbox.children[active];
    if (!option) {
      input.removeAttribute("aria-activedescendant");
      return;
    }
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", option.id);
  }

  function close() {
    look.cancel();
    controller?.abort();
    controller = null;
    wantsFirst = false;
    listbox.hidden = true;
    input.setAttribute("aria-expanded", "false");
    move(-1);
  }

  function pick(index) {
    const option = options[index];
    note.textContent = "";
    close();
    choose(option);
  }

  input.addEventListener("input", () => {
    wantsFirst = false;
    note.textContent = "";
    if (input.value.trim()) look();
    else close();
  });
  input.addEventListener("click", () => {
    if (listbox.hidden && input.value.trim() === "") look.now();
  });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const open = !listbox.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) look.now();
      else move((active + (event.key === "ArrowDown" ? 1 : -1) + options.length) % options.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (open && controller === null && !look.waits()) pick(active);
      else if (input.value.trim()) {
        wantsFirst = true;
        look.now();
      }
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      close();
    }
  });
}
