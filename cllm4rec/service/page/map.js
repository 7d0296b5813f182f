// The map: a canvas with a point for each item. History and list differ in colour and in shape.

const REACH = 18; // pixels from the pointer to a point
const MARGIN = 16; // pixels around the points
const ANGLE = 1; // of a step by an arrow key: how far aside of its direction the next item may lie, in radians

export class ItemMap {
  /**
   * frame: the element with the focus. canvas, tip: within it.
   * select(item): called when an item is selected. add(item): called to add it to the history.
   */
  constructor(frame, canvas, tip, { select, add }) {
    Object.assign(this, { frame, canvas, tip, select, add });
    this.items = new Map(); // id -> {id, title, x, y}
    this.history = new Set();
    this.ranks = new Map(); // id -> rank in the list
    this.selected = null;
    this.pointed = null;
    new ResizeObserver(() => this.draw()).observe(frame);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointermove", (event) => this.point(this.#near(event)?.id ?? null));
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("click", (event) => this.#choose(this.#near(event)));
    frame.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Adds items of the answer of /map. */
  put(items) {
    for (const { item_id, title, x, y } of items) {
      this.items.set(String(item_id), { id: String(item_id), title: title || String(item_id), x, y });
    }
    this.#fit();
    this.draw();
  }

  /** Lights up a history (ids) and a list (ids, the best first). */
  light(history, list) {
    this.history = new Set(history);
    this.ranks = new Map(list.map((id, index) => [id, index + 1]));
    this.pointed = null; // the row at which the pointer was may be gone
    this.draw();
  }

  /** Rings an item and shows its title; null for none. */
  point(id) {
    if (id === this.pointed) return;
    this.pointed = id;
    this.draw();
  }

  #fit() {
    const all = [...this.items.values()];
    const range = (values) => [Math.min(...values), Math.max(...values)];
    const [left, right] = range(all.map((item) => item.x));
    const [low, high] = range(all.map((item) => item.y));
    this.span = Math.max(right - left, high - low, 1e-6);
    this.centre = { x: (left + right) / 2, y: (low + high) / 2 };
  }

  /** Position of an item in pixels. */
  #at(item) {
    const scale = (Math.min(this.width, this.height) - 2 * MARGIN) / this.span;
    return [
      this.width / 2 + (item.x - this.centre.x) * scale,
      this.height / 2 - (item.y - this.centre.y) * scale,
    ];
  }

  draw() {
    this.width = this.frame.clientWidth;
    this.height = this.frame.clientHeight;
    if (!this.items.size || !this.width) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    const context = this.canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(this.frame);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const lit = (id) => this.history.has(id) || this.ranks.has(id);
    const radius = this.items.size > 1000 ? 2 : 3;
    context.fillStyle = colour("point");
    for (const item of this.items.values()) {
      if (!lit(item.id)) this.#disc(context, item, radius);
    }
    context.strokeStyle = colour("card");
    context.lineWidth = 1.5;
    context.fillStyle = colour("history");
    for (const id of this.history) this.#diamond(context, this.items.get(id));
    this.#drawList(context, colour);
    const ringed = this.items.get(this.pointed) ?? this.items.get(this.selected);
    this.#ring(context, colour("text"), ringed);
    this.#showTip(ringed);
  }

  #drawList(context, colour) {
    context.font = "600 10px sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (const [id, rank] of [...this.ranks].reverse()) {
      const item = this.items.get(id);
      if (!item) continue;
      context.fillStyle = colour("accent");
      this.#disc(context, item, rank < 100 ? 8.5 : 5, true);
      if (rank > 99) continue;
      context.fillStyle = colour("on-accent");
      const [x, y] = this.#at(item);
      context.fillText(String(rank), x, y + 0.5);
    }
  }

  #disc(context, item, radius, outlined = false) {
    context.beginPath();
    context.arc(...this.#at(item), radius, 0, 2 * Math.PI);
    context.fill();
    if (outlined) context.stroke();
  }

  #diamond(context, item) {
    if (!item) return;
    const [x, y] = this.#at(item);
    context.beginPath();
    for (const [dx, dy] of [[0, -7.5], [7.5, 0], [0, 7.5], [-7.5, 0]]) context.lineTo(x + dx, y + dy);
    context.closePath();
    context.fill();
    context.stroke();
  }

  #ring(context, colour, item) {
    if (!item) return;
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(...this.#at(item), 12, 0, 2 * Math.PI);
    context.stroke();
  }

  #showTip(item) {
    this.tip.hidden = !item;
    if (!item) return;
    this.tip.textContent = item.title;
    const [x, y] = this.#at(item);
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.max(half, Math.min(this.width - half, x))}px`;
    this.tip.style.top = `${y}px`;
    this.tip.classList.toggle("below", y < this.tip.offsetHeight + 20);
  }

  /** The item at the pointer; those of the list and the history come before others. */
  #near(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = null;
    let least = REACH;
    for (const item of this.items.values()) {
      const [itemX, itemY] = this.#at(item);
      const lit = this.history.has(item.id) || this.ranks.has(item.id);
      const distance = Math.hypot(itemX - x, itemY - y) * (lit ? 0.6 : 1);
      if (distance < least) [best, least] = [item, distance];
    }
    return best;
  }

  #choose(item) {
    this.selected = item?.id ?? null;
    this.select(item);
    this.draw();
  }

  #key(event) {
    const direction = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const from = this.items.get(this.selected);
    if (direction) {
      event.preventDefault();
      const next = from ? this.#next(from, direction) : this.#first();
      if (next) this.#choose(next);
    } else if (event.key === "Enter" && from) {
      event.preventDefault();
      this.add(from);
    } else if (event.key === "Escape") {
      this.#choose(null);
    }
  }

  /** Where the arrow keys begin: the best of the list, else the item in the middle. */
  #first() {
    const best = this.items.get([...this.ranks.keys()][0]);
    if (best) return best;
    const distance = (item) => Math.hypot(item.x - this.centre.x, item.y - this.centre.y);
    return [...this.items.values()].reduce((a, b) => (distance(b) < distance(a) ? b : a));
  }

  /** The nearest item in a direction. Items aside of it count as farther away. */
  #next(from, [dx, dy]) {
    let best = null;
    let least = Infinity;
    for (const item of this.items.values()) {
      const [x, y] = [item.x - from.x, item.y - from.y];
      const along = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (along <= 0 || Math.atan2(aside, along) > ANGLE) continue;
      const distance = along + 2 * aside;
      if (distance < least) [best, least] = [item, distance];
    }
    return best;
  }
}
