// One score against another, with the Pareto front of the pair.

// The finished rows that no other beats in both columns, from left to right; nothing if a column has no better way.
function paretoFront(x, y, candidates) {
  if (!x.better || !y.better || x === y) return [];
  const merit = (column, row) => shownNumber(column, row) * column.better;
  const sorted = [...candidates].sort((a, b) => merit(x, b) - merit(x, a) || merit(y, b) - merit(y, a) || a - b);
  const front = [];
  let best = -Infinity;
  for (const row of sorted) {
    if (merit(y, row) > best) {
      front.push(row);
      best = merit(y, row);
    }
  }
  return front.sort((a, b) => shownNumber(x, a) - shownNumber(x, b));
}

// The outline of what a front beats: steps away from the better side.
function frontLine(front, x, y, at) {
  const points = front.map(at);
  // Left to right, a step goes first along x where less of x is better, else first along y.
  return points.map(([px, py], i) => (i === 0 ? `M${px} ${py}` : x.better < 0 ? `H${px}V${py}` : `V${py}H${px}`)).join("");
}

function drawScatter() {
  const figure = byId("scatter");
  const [x, y] = [columnOf.get(byId("scatter-x").value), columnOf.get(byId("scatter-y").value)];
  const plot = figure.querySelector(".plot");
  if (!x || !y) return void plot.replaceChildren(element("p", { class: "empty" }, "No finished candidate has scores yet."));
  const withBoth = rows.filter(row => shownNumber(x, row) !== null && shownNumber(y, row) !== null && valueOf("state", row) !== "failed");
  const [unitX, unitY] = [axisUnits(x), axisUnits(y)];
  const values = (column, unit) => withBoth.map(row => shownNumber(column, row) / unit.divisor);
  const [valuesX, valuesY] = [values(x, unitX), values(y, unitY)];
  const [fenceX, fenceY] = [fenceOf(x, valuesX), fenceOf(y, valuesY)];
  const frame = frameOf(plot, unitX.label, unitY.label, (area, countX, countY) => ({
    x: scaleOf(valuesX, area.left, area.right, { count: countX, bounds: boundsOf(x), fence: fenceX, whole: isWhole(x) }),
    y: scaleOf(valuesY, area.bottom, area.top, { count: countY, bounds: boundsOf(y), fence: fenceY, whole: isWhole(y) }),
  }), `${y.label} against ${x.label}, one point a candidate. Arrow keys move between candidates, Enter opens one.`);
  const at = row => [frame.x(shownNumber(x, row) / unitX.divisor), frame.y(shownNumber(y, row) / unitY.divisor)].map(value => Math.round(value * 10) / 10);
  const outside = new Set(withBoth.filter((_, i) => isOutside(valuesX[i], fenceX) || isOutside(valuesY[i], fenceY)));
  const finished = withBoth.filter(isFinished);
  const front = paretoFront(x, y, finished);
  const onFront = new Set(front);
  const order = row => (passes[row] ? 2 : 0) + (onFront.has(row) ? 1 : 0);
  const points = [...withBoth].sort((a, b) => order(a) - order(b) || b - a).map(row => ({ row, at: at(row) }));
  if (front.length) frame.marks.append(svg("path", { class: "line-front", d: frontLine(front, x, y, at) }));
  for (const { row, at: [cx, cy] } of points) {
    const kind = !isFinished(row) ? "point-rejected" : outside.has(row) ? "point-outside" : onFront.has(row) ? "point-front" : "point";
    frame.marks.append(svg("circle", { class: passes[row] ? kind : `${kind} faded`, cx, cy, r: onFront.has(row) ? 4.5 : 3.5, "data-trial": valueOf("trial", row) }));
  }
  const best = finished.find(row => valueOf("rank", row) === 1);
  if (best !== undefined) frame.marks.append(svg("circle", { class: "point-best", cx: at(best)[0], cy: at(best)[1], r: 8 }));
  const entries = [["point", "candidate"]];
  if (withBoth.some(row => !isFinished(row))) entries.push(["point-rejected", "rejected (over a limit)"]);
  if (front.length) entries.push(["point-front", `Pareto front of this pair (${front.length})`]);
  if (best !== undefined) entries.push(["point-best", `rank 1: trial ${valueOf("trial", best)}`]);
  if (outside.size) entries.push(["point-outside", `far off, drawn at the edge (${outside.size})`]);
  if (isFiltered()) entries.push(["point faded", "filtered out"]);
  legend(figure, entries);
  const batch = valueOf("latency_batch", 0), threads = valueOf("latency_threads", 0);
  const how = [x, y].some(column => column.name.startsWith("latency")) && batch ? ` Latency: batch ${batch} on ${threads} thread${threads > 1 ? "s" : ""}.` : "";
  figure.querySelector(".note").textContent = `${withBoth.length} of ${study.rows} candidates have both scores.${how} A click on a point opens the trial in the leaderboard.`;
  const visible = points.filter(point => passes[point.row]).sort((a, b) => a.at[0] - b.at[0] || a.row - b.row);
  hover(frame.root, visible, (px, py) => nearest(visible, px, py), ({ row, at: [cx, cy] }, clientX, clientY) => {
    frame.over.replaceChildren(svg("circle", { class: "ring", cx, cy, r: 7 }));
    const axes = [x, y].filter(column => !column.shown).map(column => `${column.label}: ${formatWithError(column, row)}`);
    showTooltip([...trialLines(row), ...axes], clientX, clientY);
  }, () => frame.over.replaceChildren(), ({ row }) => openTrial(row));
}

function initScatter() {
  const axes = columns.filter(column => isNumeric(column) && ((column.role === "score" && !isAlias(column)) || column.role === "setting" || column.name === "trial") && new Set(column.values).size > 1);
  const options = axes.map(column => [column.name, withUnit(column)]);
  const has = name => scoreColumns.some(column => column.name === name);
  const x = ["latency_ms", "macs", "params"].find(has) ?? scoreColumns[0]?.name;
  const y = ["accuracy", "robustness", "loss"].find(name => has(name) && name !== x) ?? scoreColumns.at(-1)?.name;
  fillSelect(byId("scatter-x"), options, x);
  fillSelect(byId("scatter-y"), options, y);
  for (const id of ["scatter-x", "scatter-y"]) byId(id).addEventListener("change", drawScatter);
}
