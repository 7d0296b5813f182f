// The state of the page is in the hash of its address, so that a list can be kept, sent, and gone back to.

export const MOST_ITEMS = 500; // of a history, a list and a look-up

/** The state that an address names: user or history, wish, length and diversity. */
export function stateOf(hash) {
  const given = new URLSearchParams(hash.slice(1));
  const whole = Number.parseInt(given.get("k"), 10);
  const share = Number.parseFloat(given.get("diversity"));
  return {
    user: given.get("user"),
    history: given.get("user") === null ? [...new Set(given.getAll("item"))] : [],
    wish: given.get("wish") ?? "",
    k: whole >= 1 && whole <= MOST_ITEMS ? whole : 10,
    diversity: share >= 0 && share <= 1 ? share : 0,
  };
}

/** The address of a state; what is as by default is left out. */
export function addressOf({ user, history: ids, wish, k, diversity }) {
  const parameters = new URLSearchParams();
  if (user !== null) parameters.set("user", user);
  else ids.forEach((id) => parameters.append("item", id));
  if (wish.trim()) parameters.set("wish", wish);
  if (k !== 10) parameters.set("k", k);
  if (diversity) parameters.set("diversity", diversity);
  return `#${parameters}`;
}
