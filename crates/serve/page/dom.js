// Elements are made here, and never from markup: what a model, a recipe or a file says only ever becomes text.

const SVG = "http://www.w3.org/2000/svg";

// Icons, as strokes on a field of 24.
const ICONS = {
  chat: "M4 5h16v11H9l-5 4z",
  write: "M4 20l1-5L16 4l4 4L9 19zM14 6l4 4",
  summary: "M5 4h14M5 9h14M5 14h9M5 19h6M17 14v6M14.5 17.5L17 20l2.5-2.5",
  tokens: "M3 7h7v4H3zM13 7h8v4h-8zM3 14h10v4H3zM16 14h5v4h-5z",
  plus: "M12 5v14M5 12h14",
  send: "M5 12h13M12 5l7 7-7 7",
  stop: "M7 7h10v10H7z",
  again: "M19 12a7 7 0 1 1-2.2-5.1M19 3v4.6h-4.6",
  edit: "M4 20l1-4.5L15.5 5l3.5 3.5L8.5 19z",
  copy: "M9 9h10v11H9zM5 15V4h10",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  close: "M6 6l12 12M18 6L6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  tune: "M4 8h9M17 8h3M4 16h3M11 16h9M13 6v4M7 14v4",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  save: "M12 4v11M7.5 10.5L12 15l4.5-4.5M5 20h14",
  open: "M12 15V4M7.5 8.5L12 4l4.5 4.5M5 20h14",
  help: "M9.2 9a2.9 2.9 0 1 1 4.3 2.5c-1 .6-1.5 1.2-1.5 2.5M12 17.4v.6M12 21a9 9 0 1 1 0-18 9 9 0 0 1 0 18z",
  key: "M15 9a4 4 0 1 1-3.2 3.6L4 20v-3h3v-3h3l1.6-1.8",
  warn: "M12 4l9 16H3zM12 10v5M12 17.4v.2",
  light: "M12 8a4 4 0 1 1 0 8 4 4 0 0 1 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M19 5l-1.4 1.4M6.4 17.6L5 19",
  dark: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  system: "M4 5h16v11H4zM9 20h6M12 16v4",
  more: "M6 12h.01M12 12h.01M18 12h.01",
};

/// An element with attributes, listeners (`onclick`) and children; nothing is made of what is null or false.
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "disabled" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  fill(element, children, false);
  return element;
}

/// Gives an element these children, in place of those it has. What had the focus gives it to what has its id now.
export function fill(element, children, isReplaced = true) {
  const focused = isReplaced && element.contains(document.activeElement) ? document.activeElement.id : "";
  const nodes = [children].flat(3).filter((child) => child !== undefined && child !== null && child !== false && child !== "");
  if (isReplaced) element.replaceChildren(...nodes);
  else element.append(...nodes);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

/// An icon, which says nothing by itself.
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", "aria-hidden": "true", class: `icon icon-${name}` })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/// A button of an icon, whose label is told by its title and to screen readers.
export function iconButton(name, label, onclick, attributes = {}) {
  return el("button", { type: "button", class: "quiet", title: label, "aria-label": label, onclick, ...attributes }, icon(name));
}

/// A button with its text, and an icon if one is named.
export function textButton(text, onclick, { icon: name, ...attributes } = {}) {
  return el("button", { type: "button", class: "plain", onclick, ...attributes }, name && icon(name), el("span", {}, text));
}

let fields = 0;

/// A label with its field, and a line that explains it.
export function labelled(text, field, about) {
  const id = `field-${++fields}`;
  field.id = id;
  const hint = about && el("p", { class: "hint", id: `${id}-about` }, about);
  if (hint) field.setAttribute("aria-describedby", hint.id);
  return el("div", { class: "field" }, el("label", { for: id }, text), field, hint);
}

/// A few choices beside each other, of which one holds.
export function segments(legend, choices, chosen, onchange) {
  const name = `choice-${++fields}`;
  const one = ([value, text, name_of_icon]) => {
    const input = el("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value) });
    const shown = name_of_icon ? [icon(name_of_icon), el("span", { class: "hidden" }, text)] : text;
    return el("label", { title: name_of_icon ? text : null }, input, el("span", { class: "segment" }, shown));
  };
  return el("fieldset", { class: "segments" }, el("legend", { class: "hidden" }, legend), choices.map(one));
}

/// A text field that grows with its text.
export function growing(area) {
  const grow = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
  };
  area.addEventListener("input", grow);
  requestAnimationFrame(grow);
  return area;
}

/// Draws with the next frame, however often it is asked to before that.
export function atNextFrame(draw) {
  let isAsked = false;
  return () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(() => {
      isAsked = false;
      draw();
    });
  };
}

/// Says something to screen readers.
export function announce(text) {
  document.getElementById("status").textContent = text;
}

/// Shows a line for a while at the bottom of the page; an error stays until it is closed.
export function note(text, { isError = false, close = "×" } = {}) {
  const shut = el("button", { type: "button", class: "quiet", "aria-label": close, onclick: () => line.remove() }, icon("close"));
  const line = el("div", { class: isError ? "note error" : "note", role: isError ? "alert" : "status" }, el("span", {}, text), shut);
  document.getElementById("notes").append(line);
  if (!isError) setTimeout(() => line.remove(), 6000);
}

/// Hands a text to the user as a file.
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/// Copies a text; without the clipboard's permission, through a field that is selected.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("textarea", { class: "hidden", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}
