// Elements are made here. Texts of the service become text nodes, never markup.

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/** A new element with properties, attributes and children; children may be texts. */
export function make(tag, { attributes = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Calls `act` when no further call came for some milliseconds; `now` calls it at once. */
export function debounced(milliseconds, act) {
  let timer = null;
  const later = () => {
    later.cancel();
    timer = setTimeout(later.now, milliseconds);
  };
  later.now = () => {
    later.cancel();
    act();
  };
  later.cancel = () => {
    clearTimeout(timer);
    timer = null;
  };
  later.waits = () => timer !== null;
  return later;
}

/** A number with its sign, as shown beside effects. */
export function signed(value) {
  const text = Math.abs(value).toFixed(3);
  return Number(text) === 0 ? text : `${value < 0 ? "−" : "+"}${text}`;
}
