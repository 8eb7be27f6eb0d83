// How are many records shown in one table? Filtered, sorted and by pages, each row kept while its record is the same.
//
// 1. No more than a page of rows is in the document, whatever the number of records.
// 2. A row that is shown stays the same element, and is made anew only when what it shows has changed: focus, selection
//    and what was opened stay. An open row's record may change; it stays open.

import { arrange, el } from "./dom.js";
import { count } from "./format.js";

/**
 * `columns`: {name, title, cell(item), sort(item), isWide: left out on a phone}; `key(item)`, `stamp(item)`: equal while
 * the row is; `words(item)`: what the filter looks in; `isWrong(item)`; `usual(item)`: as a column's sort, while none is
 * chosen; `detail(item)`: element of an opened row, or null.
 */
export class Table {
  constructor(section, { caption, noun, columns, key, stamp, words, isWrong, usual = null, detail = null, page = 50, empty }) {
    Object.assign(this, { columns, key, stamp, words, isWrong, usual, detail, page, empty, noun });
    this.items = [];
    this.at = 0;
    this.order = { column: -1, isDown: false };
    this.rows = new Map();
    this.open = new Set();
    const id = section.id;
    this.filter = el("input", { type: "search", id: `${id}-filter`, placeholder: "filter", autocomplete: "off", spellcheck: "false", on: { input: () => this.again() } });
    this.wrong = el("input", { type: "checkbox", id: `${id}-wrong`, on: { change: () => this.again() } });
    this.shown = el("span", { class: "shown", role: "status" });
    this.tools = el("div", { class: "tools" },
      el("label", { class: "unseen", for: `${id}-filter` }, `Filter ${noun}s by words`), this.filter,
      el("label", { class: "check" }, this.wrong, " only what is wrong"), this.shown);
    this.heads = columns.map((column, at) => this.head(column, at));
    this.body = el("tbody", { role: "rowgroup" });
    this.none = el("p", { class: "empty" });
    this.back = el("button", { type: "button", on: { click: () => this.turn(-1) } }, "Previous");
    this.next = el("button", { type: "button", on: { click: () => this.turn(1) } }, "Next");
    this.where = el("span", {});
    this.pager = el("nav", { class: "pager", "aria-label": `Pages of ${noun}s`, hidden: true }, this.back, this.where, this.next);
    const heads = detail ? [...this.heads, el("th", { scope: "col", role: "columnheader" }, el("span", { class: "unseen" }, "Details"))] : this.heads;
    this.table = el("table", { role: "table" }, el("caption", { class: "unseen" }, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), this.body);
    section.append(this.tools, this.table, this.none, this.pager);
  }

  head(column, at) {
    const inside = column.sort
      ? el("button", { type: "button", class: "sort", on: { click: () => this.sortBy(at) } }, column.title)
      : column.title;
    return el("th", { scope: "col", role: "columnheader", class: column.isWide ? "wide" : null }, inside);
  }

  sortBy(at) {
    const { column, isDown } = this.order;
    // Up, down, and in the usual order.
    this.order = column !== at ? { column: at, isDown: false } : isDown ? { column: -1, isDown: false } : { column: at, isDown: true };
    this.heads.forEach((head, index) => {
      if (index === this.order.column) head.setAttribute("aria-sort", this.order.isDown ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.again();
  }

  showWrong() {
    this.filter.value = "";
    this.wrong.checked = true;
    this.again();
  }

  showOnly(text) {
    this.filter.value = text;
    this.wrong.checked = false;
    this.again();
  }

  again() {
    this.at = 0;
    this.render();
  }

  turn(by) {
    this.at += by;
    this.render();
  }

  show(items) {
    this.items = items;
    this.render();
  }

  chosen() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = this.items;
    if (this.wrong.checked) found = found.filter(this.isWrong);
    if (words.length) found = found.filter((item) => { const text = this.words(item).toLowerCase(); return words.every((word) => text.includes(word)); });
    const sort = this.columns[this.order.column]?.sort ?? this.usual;
    if (sort) {
      const keyed = found.map((item) => [sort(item), item]);
      keyed.sort(([a], [b]) => compare(a, b));
      if (this.order.isDown) keyed.reverse();
      found = keyed.map(([, item]) => item);
    }
    return found;
  }

  render() {
    const found = this.chosen();
    const pages = Math.max(1, Math.ceil(found.length / this.page));
    this.at = Math.min(Math.max(0, this.at), pages - 1);
    const shown = found.slice(this.at * this.page, (this.at + 1) * this.page);
    const focus = this.focused();
    const rows = new Map();
    const nodes = [];
    for (const item of shown) {
      const id = this.key(item);
      const row = this.row(id, item);
      rows.set(id, row);
      nodes.push(row.node);
      if (row.more) nodes.push(row.more);
    }
    this.rows = rows;
    arrange(this.body, nodes);
    this.refocus(focus);
    this.shown.textContent = found.length === this.items.length ? count(found.length, this.noun) : `${found.length.toLocaleString("en")} of ${count(this.items.length, this.noun)}`;
    this.table.hidden = !found.length;
    this.none.hidden = Boolean(found.length);
    this.none.textContent = this.items.length ? `No ${this.noun} matches.` : this.empty;
    this.pager.hidden = pages === 1;
    this.where.textContent = `page ${this.at + 1} of ${pages}`;
    this.back.disabled = this.at === 0;
    this.next.disabled = this.at === pages - 1;
  }

  /** Where in the rows the focus is: a cell made anew gets it back. */
  focused() {
    const row = document.activeElement?.closest("tr");
    if (!row?.dataset.id || !this.body.contains(row)) return null;
    return { id: row.dataset.id, cell: [...row.children].findIndex((cell) => cell.contains(document.activeElement)) };
  }

  refocus(focus) {
    if (!focus || this.body.contains(document.activeElement)) return;
    this.rows.get(focus.id)?.node.children[focus.cell]?.querySelector("button, a")?.focus({ preventScroll: true });
  }

  row(id, item) {
    const stamp = `${this.stamp(item)}|${this.open.has(id)}`;
    const known = this.rows.get(id);
    if (known?.stamp === stamp) return known;
    const cells = this.columns.map((column, at) => el(at ? "td" : "th", { role: at ? "cell" : "rowheader", scope: at ? null : "row", class: column.isWide ? "wide" : null, "data-title": column.title }, column.cell(item)));
    const button = known?.button ?? (this.detail ? this.opener(id) : null);
    if (button) {
      button.setAttribute("aria-expanded", String(this.open.has(id)));
      button.firstChild.textContent = this.open.has(id) ? "Close" : "Details";
      button.lastChild.textContent = ` of ${this.words(item)}`;
    }
    const node = known?.node ?? el("tr", { role: "row", "data-id": id });
    // The button stays in the document while the cells around it are made anew.
    if (button && known) {
      [...node.children].slice(0, -1).forEach((cell) => cell.remove());
      node.prepend(...cells);
    } else node.replaceChildren(...cells, ...(button ? [el("td", { role: "cell", class: "open" }, button)] : []));
    node.dataset.level = item.level ?? "";
    let more = null;
    if (this.open.has(id) && this.detail) {
      more = el("tr", { role: "row", class: "detail" }, el("td", { role: "cell", colspan: String(this.columns.length + 1) }, this.detail(item)));
    }
    return { node, more, button, stamp };
  }

  opener(id) {
    return el("button", { type: "button", on: { click: () => this.toggle(id) } }, el("span", {}), el("span", { class: "unseen" }));
  }

  toggle(id) {
    if (!this.open.delete(id)) this.open.add(id);
    this.render();
  }
}

const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return collator.compare(String(a), String(b));
}
