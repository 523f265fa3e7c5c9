// Parallel coordinates: every setting and score that differs is an axis, every candidate a line.

const classes = 6;

// Numbers as they are; other values by their place in the sorted list of those that occur.
function axisOf(column) {
  const { divisor } = axisUnits(column);
  if (isNumeric(column)) return { column, divisor, value: row => shownNumber(column, row) };
  const names = [...new Set(column.values.filter(value => value !== null))].sort();
  return { column, divisor: 1, names, value: row => (column.values[row] === null ? null : names.indexOf(column.values[row])) };
}

function parallelAxes() {
  const wanted = column => column.role === "setting" || (column.role === "score" && column.shown);
  const differs = column => new Set(rows.filter(isFinished).map(row => column.values[row])).size > 1;
  const chosen = columns.filter(column => wanted(column) && differs(column));
  return [...chosen.filter(column => column.role === "setting"), ...chosen.filter(column => column.role === "score")].map(axisOf);
}

// Settings take few values: lines of the same value are spread a little, so that their number shows.
const spread = row => (((row * 0.618034) % 1) - 0.5) * 14;

function drawParallel() {
  const figure = byId("parallel");
  const plot = figure.querySelector(".plot");
  const axes = parallelAxes();
  const lines = rows.filter(row => isFinished(row) && axes.every(axis => axis.value(row) !== null));
  const colour = columnOf.get(byId("parallel-colour").value);
  if (!colour || axes.length < 2 || lines.length === 0) {
    legend(figure, []);
    return void plot.replaceChildren(element("p", { class: "empty" }, "Too few finished candidates that differ."));
  }
  const width = Math.max(plot.clientWidth || 640, axes.length * 78);
  const height = 340, top = 58, bottom = height - 26, left = 44, right = width - 44;
  const across = at => left + (at / (axes.length - 1)) * (right - left);
  for (const axis of axes) {
    const values = lines.map(row => axis.value(row) / axis.divisor);
    const fence = fenceOf(axis.column, values);
    axis.scale = scaleOf(axis.names ? axis.names.map((_, at) => at) : values, bottom, top, { count: 5, bounds: axis.names ? undefined : boundsOf(axis.column), fence });
  }
  const heights = new Map(lines.map(row => [row, axes.map(axis => Math.round((axis.scale(axis.value(row) / axis.divisor) + (axis.column.role === "setting" ? spread(row) : 0)) * 10) / 10)]));
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", tabindex: "0", "aria-label": "Settings and scores of all candidates. Arrow keys move between candidates." });
  const path = row => heights.get(row).map((y, at) => `${at ? "L" : "M"}${Math.round(across(at))} ${y}`).join("");

  // Lines of one class are one path, so that thousands stay fast; the best are drawn last.
  const sorted = lines.filter(row => passes[row] && shownNumber(colour, row) !== null).sort((a, b) => (shownNumber(colour, a) - shownNumber(colour, b)) * (colour.better || 1));
  const inClass = Array.from({ length: classes }, () => []);
  sorted.forEach((row, at) => inClass[Math.floor((at * classes) / sorted.length)].push(row));
  root.append(svg("path", { class: "strand faded", d: lines.filter(row => !passes[row]).map(path).join("") }));
  inClass.forEach((members, at) => root.append(svg("path", { class: `strand ramp-${at}`, d: members.map(path).join("") })));
  const over = svg("g", { class: "over" });
  root.append(over);
  axes.forEach((axis, at) => root.append(drawnAxis(axis, across(at), top, bottom, at)));
  plot.replaceChildren(root);
  legend(figure, colour.better ? [[`line-ramp ramp-${classes - 1}`, `best sixth by ${colour.label.toLowerCase()}`], ["line-ramp ramp-0", "worst sixth"]] : [[`line-ramp ramp-${classes - 1}`, `highest sixth by ${colour.label.toLowerCase()}`], ["line-ramp ramp-0", "lowest sixth"]]);

  const visible = sorted.map(row => ({ row, at: [across(axes.length - 1), heights.get(row).at(-1)] })).reverse();
  const near = (px, py) => {
    const segment = Math.min(Math.max(Math.floor(((px - left) / (right - left)) * (axes.length - 1)), 0), axes.length - 2);
    const share = Math.min(Math.max((px - across(segment)) / (across(segment + 1) - across(segment)), 0), 1);
    let best = null, least = 14;
    for (const point of visible) {
      const ys = heights.get(point.row);
      const distance = Math.abs(ys[segment] + (ys[segment + 1] - ys[segment]) * share - py);
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  };
  hover(root, visible, near, ({ row }, clientX, clientY) => {
    over.replaceChildren(svg("path", { class: "strand-over", d: path(row) }));
    showTooltip([...trialLines(row), ...axes.filter(axis => axis.column.role === "setting").map(axis => `${axis.column.label}: ${format(axis.column, row)}`)], clientX, clientY);
  }, () => over.replaceChildren(), ({ row }) => openTrial(row));
}

function drawnAxis(axis, x, top, bottom, at) {
  const { column, scale } = axis;
  const group = svg("g", { class: "axis", "data-axis": column.name });
  const unit = axisUnits(column).label.match(/\((.*)\)$/)?.[1] ?? "";
  const name = column.short ?? column.label;
  const words = name.length > 11 ? name.split(" ") : [name];
  const head = svg("text", { class: "axis-label", x, y: 14, "text-anchor": "middle" });
  const texts = [words.slice(0, Math.ceil(words.length / 2)).join(" "), words.slice(Math.ceil(words.length / 2)).join(" "), unit && unit !== "count" ? `(${unit})` : ""].filter(Boolean);
  texts.forEach((text, line) => head.append(svg("tspan", { x, dy: line ? 14 : 0 }, text)));
  group.append(svg("path", { class: "pole", d: `M${x} ${top}V${bottom}` }), head);
  const ticks = axis.names ? axis.names.map((value, place) => ({ value: place, text: value === true ? "yes" : value === false ? "no" : String(value) })) : discrete(axis) ?? scale.ticks;
  for (const tick of ticks) {
    group.append(svg("path", { class: "pole", d: `M${x - 3} ${scale(tick.value)}h6` }), svg("text", { class: "tick", x: x - 6, y: scale(tick.value) + 4, "text-anchor": "end" }, tick.text));
  }
  if (axis.names) return group;
  const range = filter.ranges.get(column.name);
  if (range) {
    const high = range[1] === null ? top : Math.max(scale(range[1] / axis.divisor), top);
    const low = range[0] === null ? bottom : Math.min(scale(range[0] / axis.divisor), bottom);
    group.append(svg("rect", { class: "brush", x: x - 7, y: Math.min(high, low), width: 14, height: Math.max(Math.abs(low - high), 2) }));
  }
  const zone = svg("rect", { class: "zone", x: x - 12, y: top - 6, width: 24, height: bottom - top + 12 });
  brushing(zone, group, axis, x, top, bottom);
  group.append(zone);
  return group;
}

// Few whole numbers are their own ticks.
function discrete(axis) {
  const found = [...new Set(axis.column.values.filter(value => value !== null))];
  if (found.length > 9 || axis.divisor !== 1 || !found.every(Number.isInteger) || axis.column.role !== "setting") return null;
  return found.map(value => ({ value, text: String(value) }));
}

function brushing(zone, group, axis, x, top, bottom) {
  let start = null;
  const place = event => {
    const box = zone.ownerSVGElement.getBoundingClientRect();
    const zoom = zone.ownerSVGElement.viewBox.baseVal.height / box.height;
    return Math.min(Math.max((event.clientY - box.top) * zoom, top), bottom);
  };
  zone.addEventListener("pointerdown", event => {
    start = place(event);
    zone.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  zone.addEventListener("pointermove", event => {
    if (start === null) return;
    event.stopPropagation();
    const now = place(event);
    group.querySelector(".brush")?.remove();
    zone.before(svg("rect", { class: "brush", x: x - 7, y: Math.min(start, now), width: 14, height: Math.max(Math.abs(now - start), 1) }));
  });
  zone.addEventListener("pointerup", event => {
    if (start === null) return;
    const [from, to] = [start, place(event)];
    start = null;
    if (Math.abs(from - to) < 4) return setRange(axis.column.name, null, null);
    const ends = [from, to].map(at => Number((axis.scale.invert(at) * axis.divisor).toPrecision(4))).sort((a, b) => a - b);
    setRange(axis.column.name, ...ends);
  });
  zone.addEventListener("click", event => event.stopPropagation());
}

function initParallel() {
  fillSelect(byId("parallel-colour"), scoreColumns.map(column => [column.name, withUnit(column)]), study.target);
  byId("parallel-colour").addEventListener("change", drawParallel);
  byId("parallel-clear").addEventListener("click", () => { filter.ranges.clear(); refilter(); });
}
