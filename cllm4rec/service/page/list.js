// The list with its reasons, and the history.

import { make, signed } from "./dom.js";

const MOST_REASONS = 6; // rows that are shown

/**
 * Rows of a list.
 *
 * ol: the element. items: of the answer of /recommend.
 * actions: `explain(item)`, a promise of reasons, or null where there is no history; `add(item)`;
 *   `point(id)`, called with the item under the pointer or the focus, and with null after it.
 * A focused button gives the focus to that of the same place.
 */
export function showList(ol, items, actions) {
  const focused = ol.contains(document.activeElement) ? document.activeElement : null;
  const place = [...ol.children].indexOf(focused?.closest(".row"));
  ol.replaceChildren(...items.map((item) => row(item, actions)));
  if (focused) ol.children[place]?.querySelector(`.${focused.className}`)?.focus({ preventScroll: true });
}

function row(item, { explain, add, point }) {
  const id = String(item.item_id);
  const title = item.title || id;
  const reasons = make("div", { className: "reasons", id: `reasons-${item.rank}`, hidden: true });
  const buttons = make("div", { className: "actions" });
  if (explain) {
    const attributes = { "aria-expanded": "false", "aria-controls": reasons.id, "aria-label": `Why? ${title}` };
    const why = make("button", { type: "button", className: "why", attributes }, "Why?");
    why.addEventListener("click", () => toggle(why, reasons, () => explain(item)));
    buttons.append(why);
  }
  const attributes = { "aria-label": `Add ${title} to the history` };
  const plus = make("button", { type: "button", className: "add", attributes }, "Add");
  plus.addEventListener("click", () => add(item));
  buttons.append(plus);
  const what = make("div", { className: "what" }, make("span", { className: "title" }, title));
  if (item.title) what.append(make("span", { className: "id" }, id));
  const score = make("span", { className: "score", title: "score" }, item.score.toFixed(3));
  const rank = make("span", { className: "rank" }, String(item.rank));
  const li = make("li", { className: "row" }, rank, what, score, buttons, reasons);
  li.dataset.id = id;
  pointing(li, id, point);
  return li;
}

/** Calls `point` while an element has the pointer or the focus. */
export function pointing(element, id, point) {
  element.addEventListener("pointerenter", () => point(id));
  element.addEventListener("pointerleave", () => point(null));
  element.addEventListener("focusin", () => point(id));
  element.addEventListener("focusout", () => point(null));
}

async function toggle(button, panel, explain) {
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", open);
  panel.hidden = !open;
  if (!open || panel.dataset.state === "shown" || panel.dataset.state === "asked") return;
  panel.dataset.state = "asked";
  panel.setAttribute("aria-busy", "true");
  panel.replaceChildren(make("p", { className: "note", attributes: { role: "status" } }, "Reasons are computed."));
  try {
    panel.replaceChildren(...reasonsOf(await explain()));
    panel.dataset.state = "shown";
  } catch (error) {
    panel.replaceChildren(make("p", { className: "error", attributes: { role: "alert" } }, error.message));
    panel.dataset.state = "failed";
  }
  panel.removeAttribute("aria-busy");
}

function reasonsOf({ score, rank, items, words, wished }) {
  const place = `${wished ? "Without the wish: score" : "Score"} ${score.toFixed(3)}, rank ${rank}.`;
  const parts = [
    make("p", { className: "note" }, `${place} Below: what this score would lose without each.`),
    ...effects("Items of the history", items, (each) => each.title || String(each.item_id)),
  ];
  if (words.length) parts.push(...effects("Words of its text", words, (each) => each.word));
  return parts;
}

/** A heading, and a table of the largest effects. */
function effects(heading, all, name) {
  const ranked = [...all].sort((a, b) => Math.abs(b.effect ?? 0) - Math.abs(a.effect ?? 0));
  const shown = ranked.slice(0, MOST_REASONS);
  const largest = Math.max(1e-9, ...shown.map((each) => Math.abs(each.effect ?? 0)));
  const rows = shown.map((each) => {
    const bar = make("span", { className: each.effect < 0 ? "bar negative" : "bar" });
    bar.style.width = `${(100 * Math.abs(each.effect ?? 0)) / largest}%`;
    return make(
      "tr",
      {},
      make("th", { attributes: { scope: "row" } }, name(each)),
      make("td", { className: "bars" }, bar),
      make("td", { className: "number" }, each.effect === null ? "unknown" : signed(each.effect)),
    );
  });
  const parts = [make("table", {}, make("caption", {}, heading), make("tbody", {}, ...rows))];
  const left = all.length - shown.length;
  if (left) parts.push(make("p", { className: "note" }, `Not shown, with smaller effects: ${left}.`));
  return parts;
}

/**
 * The chips of a history (ids, the oldest first), the latest first, each with a button that removes it.
 *
 * A focused button that is removed gives the focus to that of the same place, or to `otherwise`.
 */
export function showHistory(ul, ids, titleOf, { remove, point, otherwise }) {
  const focused = ul.contains(document.activeElement) ? document.activeElement.closest("li") : null;
  const place = [...ul.children].indexOf(focused);
  const chips = [...ids].reverse().map((id) => {
    const title = titleOf(id);
    const attributes = { "aria-label": `Remove ${title}` };
    const button = make("button", { type: "button", attributes }, "×");
    button.addEventListener("click", () => remove(id));
    const chip = make("li", { className: "chip" }, make("span", { title: id }, title), button);
    chip.dataset.id = id;
    pointing(chip, id, point);
    return chip;
  });
  ul.replaceChildren(...chips);
  if (!focused) return;
  const same = chips.find((chip) => chip.dataset.id === focused.dataset.id);
  const next = same ?? chips[Math.min(place, chips.length - 1)];
  (next?.querySelector("button") ?? otherwise).focus();
}
