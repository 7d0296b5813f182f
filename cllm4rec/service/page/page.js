// The page: from its controls to requests, and from answers to list, history and map.

import { addressOf, MOST_ITEMS, stateOf } from "./address.js";
import { get, getItems, post } from "./api.js";
import { combobox } from "./combobox.js";
import { byId, debounced } from "./dom.js";
import { showHistory, showList } from "./list.js";
import { ItemMap } from "./map.js";

const TYPING = 400; // milliseconds after the last key of a wish

let state = stateOf(location.hash);
let history = []; // ids that are shown: those of the state, or of the user
let list = []; // ids that are shown
let drawing = null; // the controller of the requests under way
let asked = Promise.resolve([]); // the history of the state, when it is known
let typing = false; // whether the last change was one of the wish, which is not left yet
const titles = new Map(); // id -> title
const map = new ItemMap(byId("map"), byId("canvas"), byId("tip"), { select: showSelected, add: addItem });
let mapped = null; // the first answer of /map
let hasVectors = true; // whether the system has item vectors, as far as is known

/** Change the state, keep the one before in the browser's history, and draw. */
function change(changes, { replace = false } = {}) {
  state = { ...state, ...changes };
  typing = false;
  const address = addressOf(state);
  if (replace) window.history.replaceState(null, "", address);
  else if (address !== (location.hash || "#")) window.history.pushState(null, "", address);
  draw();
}

/** Show the controls as the state is, and ask for what it names. */
async function draw() {
  drawing?.abort();
  drawing = new AbortController();
  const { signal } = drawing;
  showControls();
  byId("result").setAttribute("aria-busy", "true");
  asked = historyOf(state, signal);
  const shown = asked.then(showChips, (error) => {
    if (signal.aborted) return;
    showChips(state.history);
    throw error;
  });
  const [listed, ...others] = await Promise.allSettled([listOf(state, signal), shown]);
  if (signal.aborted) return;
  byId("result").removeAttribute("aria-busy");
  showFound(listed.status === "fulfilled" ? listed.value : { items: [], ignored_words: [] });
  showError([listed, ...others].find((each) => each.status === "rejected")?.reason);
  await light(signal);
}

function showControls() {
  const { user, wish, k, diversity } = state;
  if (document.activeElement !== byId("user")) byId("user").value = user ?? "";
  if (byId("wish").value.trim() !== wish.trim()) byId("wish").value = wish;
  byId("k").value = k;
  byId("diversity").value = diversity;
  byId("diversity").disabled = !hasVectors || !Object.keys(sourceOf(state)).length; // a wish alone takes none
  byId("diversity-value").textContent = diversity;
}

/** Ids of the history, the oldest first; their titles are remembered. */
async function historyOf({ user, history: ids }, signal) {
  if (user !== null) return remember((await get("history", { user }, signal)).items);
  const unknown = ids.filter((id) => !titles.has(id)).slice(-MOST_ITEMS);
  remember(await getItems("items", unknown, signal));
  return ids;
}

function remember(items) {
  return items.map(({ item_id, title }) => {
    titles.set(String(item_id), title || String(item_id));
    return String(item_id);
  });
}

/** The source of a list: `user`, `history`, or neither. */
function sourceOf({ user, history: ids }) {
  if (user !== null) return { user };
  return ids.length ? { history: ids } : {};
}

/** The items of the list, and the ignored words of the wish; null if nothing is asked for. */
async function listOf(request, signal) {
  const body = { ...sourceOf(request), k: request.k };
  const wish = request.wish.trim();
  const personal = "user" in body || "history" in body;
  if (!personal && !wish) return null;
  if (wish) body.wish = wish;
  if (personal && request.diversity) body.diversity = request.diversity;
  const found = await post("recommend", body, signal);
  remember(found.items);
  return found;
}

function showFound(found) {
  const items = found?.items ?? [];
  const source = sourceOf(state);
  const wished = Boolean(state.wish.trim());
  list = items.map((item) => String(item.item_id));
  const explain = async ({ item_id }) => {
    const reasons = await post("explain", { ...source, item: item_id });
    return { ...reasons, wished };
  };
  const actions = { explain: Object.keys(source).length ? explain : null, add: addItem, point };
  showList(byId("list"), items, actions);
  const of = source.user !== undefined ? `for ${source.user}` : source.history ? "for this history" : "for the wish";
  const count = list.length === 1 ? "1 item" : `${list.length} items`;
  const ignored = found?.ignored_words.length ? ` No item has: ${found.ignored_words.join(", ")}.` : "";
  const none = "Choose a user, add items, or type a wish.";
  byId("status").textContent = found === null ? none : `${count} ${of}.${ignored}`;
}

function showChips(ids) {
  history = ids;
  const actions = { remove: removeItem, point, otherwise: byId("item") };
  showHistory(byId("history"), history, (id) => titles.get(id) ?? id, actions);
  byId("history-note").hidden = history.length > 0;
  byId("clear").hidden = history.length === 0 && state.user === null;
}

function showError(error) {
  const element = byId("error");
  element.hidden = !error;
  element.textContent = error ? error.message : "";
  if (error) byId("status").textContent = "";
}

/** Light up history and list; items that the map lacks are asked for. */
async function light(signal) {
  if (!mapped) return;
  const lacking = [...list, ...history.slice().reverse()].filter((id) => !map.items.has(id));
  if (mapped.n_items > mapped.items.length && lacking.length) {
    try {
      map.put(await getItems("map", lacking.slice(0, MOST_ITEMS), signal));
    } catch (error) {
      if (signal.aborted) return;
      showError(error);
    }
  }
  map.light(history, list);
  const label = `Map of items. ${list.length} of the list and ${history.length} of the history are marked.`;
  byId("map").setAttribute("aria-label", label);
}

function point(id) {
  map.point(id);
}

function addItem(item) {
  const id = String(item.item_id ?? item.id);
  return edit((ids) => (ids.includes(id) ? ids : [...ids, id].slice(-MOST_ITEMS)));
}

function removeItem(id) {
  map.point(null);
  return edit((ids) => ids.filter((each) => each !== id));
}

/** Change the history. That of a user becomes one without a user. */
async function edit(edited) {
  const before = state.user === null ? state.history : await asked.catch(() => []);
  const after = edited(before);
  if (after !== before) change({ user: null, history: after });
}

function showSelected(item) {
  byId("selected").textContent = item ? item.title : "";
  byId("add-selected").hidden = !item;
  byId("add-selected").setAttribute("aria-label", item ? `Add ${item.title} to the history` : "Add");
  byId("add-selected").onclick = () => addItem(item);
}

function connectSearches() {
  combobox({
    input: byId("user"),
    listbox: byId("user-options"),
    note: byId("user-note"),
    search: async (text, signal) =>
      (await get("users", { q: text }, signal)).users.map((id) => ({ id: String(id), label: String(id) })),
    choose: ({ id }) => {
      byId("user").value = id;
      change({ user: id, history: [] });
    },
    failed: showError,
  });
  byId("user").addEventListener("input", () => {
    if (byId("user").value === "" && state.user !== null) change({ user: null, history: [] });
  });
  byId("user").addEventListener("blur", () => {
    byId("user").value = state.user ?? "";
  });
  combobox({
    input: byId("item"),
    listbox: byId("item-options"),
    note: byId("item-note"),
    search: async (text, signal) => {
      const { items } = await get("items", { q: text }, signal);
      remember(items);
      return items.map(({ item_id: id, title }) => ({ id, label: title || String(id), detail: title ? id : "" }));
    },
    choose: ({ id }) => {
      byId("item").value = "";
      addItem({ id });
    },
    failed: showError,
  });
}

function connectSettings() {
  const wish = byId("wish");
  const typed = debounced(TYPING, () => {
    if (wish.value.trim() === state.wish.trim()) return;
    change({ wish: wish.value }, { replace: typing });
    typing = true;
  });
  wish.addEventListener("input", typed);
  wish.addEventListener("change", () => {
    typed.now();
    typing = false;
  });
  byId("k").addEventListener("change", () => {
    const k = Number.parseInt(byId("k").value, 10) || 10;
    change({ k: Math.max(1, Math.min(MOST_ITEMS, k)) });
  });
  byId("diversity").addEventListener("input", () => {
    byId("diversity-value").textContent = byId("diversity").value;
  });
  byId("diversity").addEventListener("change", () => change({ diversity: Number(byId("diversity").value) }));
  byId("clear").addEventListener("click", () => {
    byId("user").value = "";
    change({ user: null, history: [] });
    byId("item").focus();
  });
  window.addEventListener("popstate", () => {
    typed.cancel();
    state = stateOf(location.hash);
    byId("user").value = state.user ?? "";
    draw();
  });
}

async function showRun() {
  const { run, system, n_items, n_users } = await get("health");
  const number = (value) => value.toLocaleString("en");
  byId("run").textContent = `${system} · ${run} · ${number(n_items)} items · ${number(n_users)} users`;
}

/** The search for users is left out where the service has none. */
async function askForUsers() {
  try {
    await get("users", { k: 1 });
  } catch (error) {
    if (error.status !== 400) throw error;
    byId("user-field").hidden = true;
    byId("user-note").textContent = error.message;
  }
}

async function askForMap() {
  try {
    mapped = await get("map");
  } catch (error) {
    if (error.status !== 400) throw error;
    byId("map-body").hidden = true;
    byId("map-note").textContent = error.message;
    hasVectors = false; // which diversity needs too
    showControls();
    return;
  }
  map.put(mapped.items);
  const shown = mapped.items.length < mapped.n_items ? ` ${mapped.items.length} random items are drawn.` : "";
  const share = `${Math.round(100 * mapped.variance)}\u00a0%`;
  byId("map-note").textContent = `Neighbours have similar vectors. The map holds ${share} of their variance.${shown}`;
  await light(drawing.signal);
}

connectSearches();
connectSettings();
await Promise.all([draw(), showRun(), askForUsers(), askForMap()].map((each) => each.catch(showError)));
document.documentElement.dataset.ready = "true";
