// How does data become elements? As text, always: nothing here, or anywhere on the page, makes markup of a string.

/** An element. `props`: `class`, attributes by their names (false or null: left out), `on: {event: handler}`. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

/** Make `parent`'s children exactly `nodes`; those that stay in order are not touched, so focus and selection stay. */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  let at = parent.firstElementChild;
  for (const node of nodes) {
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
}

/** A word with a mark before it; the mark's shape and the word say it, the colour only helps. Level: ok, warn, bad, idle. */
export function mark(level, word, title) {
  return el("span", { class: "mark", "data-level": level, title }, word);
}

/** How full something is: `used` of `total`, in words and as a bar. */
export function meter(used, total, words) {
  const share = total > 0 ? Math.min(1, Math.max(0, used / total)) : 0;
  const fill = el("span", { class: "fill", "data-level": share >= 0.9 ? "warn" : "ok" });
  fill.style.width = `${Math.round(share * 100)}%`;
  return el("span", { class: "meter" }, el("span", { class: "words" }, words), el("span", { class: "bar", "aria-hidden": "true" }, fill));
}
