// What the charts share: SVG elements, scales, axes, legends and the tooltip.

const svgNamespace = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(svgNamespace, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Round steps of 1, 2 or 5 times a power of ten, about `count` of them.
function ticksOf(low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough * 0.7);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9); tick * step <= high + step * 1e-9; tick++) ticks.push(tick * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return ticks.map(value => ({ value, text: value.toFixed(digits) }));
}

// Where values end that are worth a place in a chart: a few stragglers on the worse side would squeeze all others.
function fenceOf(column, values) {
  if (!column.better || values.length < 20) return [-Infinity, Infinity];
  const sorted = [...values].sort((a, b) => a - b);
  const at = share => sorted[Math.round(share * (sorted.length - 1))];
  let reach = 3 * (at(0.75) - at(0.25));
  if (!(reach > 0)) return [-Infinity, Infinity];
  // One in twenty may lie outside; the fence moves until that holds.
  for (;; reach *= 1.5) {
    const fence = column.better > 0 ? [at(0.25) - reach, Infinity] : [-Infinity, at(0.75) + reach];
    if (sorted.filter(value => isOutside(value, fence)).length <= 0.05 * sorted.length) return fence;
  }
}

const isOutside = (value, [low, high]) => value < low || value > high;

// A linear scale around values, with a margin; `bounds` are never passed, and values beyond them stand at the edge.
function scaleOf(values, from, to, { count = 6, bounds = [-Infinity, Infinity], fence = [-Infinity, Infinity], whole = false } = {}) {
  let low = Infinity, high = -Infinity;
  values = values.filter(value => !isOutside(value, fence));
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) [low, high] = [0, 1];
  const margin = low === high ? Math.max(Math.abs(low) * 0.1, 0.5) : (high - low) * 0.05;
  low = Math.max(low - margin, bounds[0]);
  high = Math.min(high + margin, bounds[1]);
  if (low === high) high = low + 1;
  const scale = value => from + ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (to - from);
  return Object.assign(scale, { low, high, ticks: ticksOf(low, high, count).filter(tick => !whole || Number.isInteger(tick.value)), invert: at => low + ((at - from) / (to - from)) * (high - low) });
}

// Counts are shown in thousands, millions or billions, whichever fits the largest.
function axisUnits(column) {
  if (column.digits !== null || !column.name) return { divisor: 1, label: withUnit(column) };
  const largest = Math.max(0, ...column.values.filter(value => value !== null));
  const [divisor, word] = largest >= 2e9 ? [1e9, "billions"] : largest >= 2e6 ? [1e6, "millions"] : largest >= 2e3 ? [1e3, "thousands"] : [1, ""];
  return { divisor, label: word ? `${column.label} (${word})` : `${column.label} (count)` };
}

// Settings and numbers of trials have no values in between.
const isWhole = column => column.role === "setting" || column.name === "trial";

// Shares end at 0 and 100 %, everything else that is measured at 0.
const boundsOf = column => (column.role === "setting" ? undefined : column.unit === "%" ? [0, 100] : column.name === "objective" && column.unit === "" ? [-Infinity, Infinity] : [0, Infinity]);

// An empty chart with axes, grid and labels; gives the layers to draw on.
function frameOf(plot, xLabel, yLabel, makeScales, name) {
  const width = Math.max(plot.clientWidth || 640, 260);
  const height = Math.round(Math.min(Math.max(width * 0.56, 280), 440));
  const area = { left: 70, right: width - 14, top: 12, bottom: height - 50 };
  const { x, y } = makeScales(area, Math.max(3, Math.floor(width / 100)), 6);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", tabindex: "0", "aria-label": name });
  const grid = svg("g", { class: "grid" });
  for (const tick of x.ticks) {
    const at = x(tick.value);
    grid.append(svg("path", { d: `M${at} ${area.top}V${area.bottom}` }), svg("text", { x: at, y: area.bottom + 18, "text-anchor": "middle" }, tick.text));
  }
  for (const tick of y.ticks) {
    const at = y(tick.value);
    grid.append(svg("path", { d: `M${area.left} ${at}H${area.right}` }), svg("text", { x: area.left - 8, y: at + 4, "text-anchor": "end" }, tick.text));
  }
  const middle = (area.top + area.bottom) / 2;
  grid.append(
    svg("text", { class: "axis-label", x: (area.left + area.right) / 2, y: height - 8, "text-anchor": "middle" }, xLabel),
    svg("text", { class: "axis-label", x: 14, y: middle, transform: `rotate(-90 14 ${middle})`, "text-anchor": "middle" }, yLabel)
  );
  const marks = svg("g");
  const over = svg("g", { class: "over" });
  root.append(grid, marks, over);
  plot.replaceChildren(root);
  return { root, marks, over, area, x, y };
}

// Stairs through points sorted by x, to the right end.
function stairs(points, end) {
  if (points.length === 0) return "";
  const steps = points.map(([x, y], at) => (at === 0 ? `M${x} ${y}` : `H${x}V${y}`));
  return steps.join("") + (end === undefined ? "" : `H${end}`);
}

const line = points => points.map(([x, y], at) => `${at ? "L" : "M"}${x} ${y}`).join("");

function legend(figure, entries) {
  const items = entries.map(([mark, text]) => {
    const key = svg("svg", { width: 26, height: 14, "aria-hidden": "true" }, mark.startsWith("line") ? svg("path", { class: mark, d: "M1 7H25" }) : svg("circle", { class: mark, cx: 13, cy: 7, r: 4.5 }));
    return element("li", {}, key, text);
  });
  figure.querySelector(".legend").replaceChildren(...items);
}

const tooltip = byId("tooltip");

function showTooltip(lines, clientX, clientY) {
  const [head, ...rest] = lines;
  tooltip.replaceChildren(element("strong", {}, head), ...rest.map(text => element("div", {}, text)));
  tooltip.hidden = false;
  const { width, height } = tooltip.getBoundingClientRect();
  const left = clientX + 16 + width > innerWidth ? clientX - width - 16 : clientX + 16;
  const top = clientY + 16 + height > innerHeight ? clientY - height - 16 : clientY + 16;
  tooltip.style.left = `${Math.max(4, left)}px`;
  tooltip.style.top = `${Math.max(4, top)}px`;
}

const hideTooltip = () => { tooltip.hidden = true; };

// A trial in a tooltip: its number, then every score that the table shows.
function trialLines(row) {
  const scores = columns.filter(column => column.role === "score" && column.shown && column.values[row] !== null);
  const reason = valueOf("reason", row);
  return [
    `Trial ${valueOf("trial", row)} (${isFinished(row) ? `rank ${valueOf("rank", row)}` : valueOf("state", row)})`,
    ...scores.map(column => `${column.short ?? column.label}: ${formatWithError(column, row)}`),
    ...(reason ? [reason.length > 90 ? `${reason.slice(0, 87)}…` : reason] : []),
  ];
}

// Mouse, touch and arrow keys over points sorted from left to right; `near` picks one for a place in the chart.
function hover(root, points, near, show, hide, choose) {
  let current = null;
  const pick = (point, clientX, clientY) => {
    current = point;
    if (point === null) return leave();
    const box = root.getBoundingClientRect();
    const zoom = box.width / root.viewBox.baseVal.width;
    show(point, clientX ?? box.left + point.at[0] * zoom, clientY ?? box.top + point.at[1] * zoom);
  };
  const leave = () => { current = null; hide(); hideTooltip(); };
  root.addEventListener("pointermove", event => {
    const box = root.getBoundingClientRect();
    const zoom = root.viewBox.baseVal.width / box.width;
    pick(near((event.clientX - box.left) * zoom, (event.clientY - box.top) * zoom), event.clientX, event.clientY);
  });
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
  root.addEventListener("click", () => { if (current && choose) choose(current); });
  root.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && points.length) {
      event.preventDefault();
      const at = points.indexOf(current);
      pick(points[at < 0 ? 0 : (at + step + points.length) % points.length]);
    } else if (event.key === "Enter" && current && choose) choose(current);
    else if (event.key === "Escape") leave();
  });
}

// The nearest of points within `reach` pixels, or null.
function nearest(points, x, y, reach = 30) {
  let best = null, least = reach * reach;
  for (const point of points) {
    const distance = (point.at[0] - x) ** 2 + (point.at[1] - y) ** 2;
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

// An objective that is one score has that score's own column.
const isAlias = column => column.name === "objective" && study.target !== "objective";
const scoreColumns = columns.filter(column => column.role === "score" && !isAlias(column) && isNumeric(column) && rows.some(row => isFinished(row) && column.values[row] !== null));
