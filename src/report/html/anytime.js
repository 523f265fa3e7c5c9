// The best so far, over scored candidates or search time, against random search.

// Finished rows in the order in which they count: by number, or by the time of their outcome.
function course(column, overTime) {
  const scored = rows.filter(row => isFinished(row)).sort((a, b) => valueOf("trial", a) - valueOf("trial", b));
  const places = scored.map((row, at) => ({ row, n: at + 1, time: valueOf("elapsed_s", row), value: shownNumber(column, row) }));
  const ordered = places.filter(place => place.value !== null && place.time !== null);
  return overTime ? ordered.sort((a, b) => a.time - b.time || a.n - b.n) : ordered;
}

function bestSoFar(places, better) {
  let best = null;
  return places.map(place => {
    if (best === null || (place.value - best.value) * better > 0) best = place;
    return { ...place, best };
  });
}

// Candidates scored with trained weights, in the order of time: level counts the fidelities, n the candidates that were
// scored with predicted weights by then.
function trainedPlaces(score, scoredTimes) {
  const fidelities = columns.filter(column => column.name.startsWith("elapsed_s@")).map(column => column.name.slice(10));
  return fidelities.flatMap((fidelity, level) => {
    const column = columnOf.get(`${score}@${fidelity}`);
    if (!column) return [];
    return rows.map(row => ({ row, fidelity, level, time: valueOf(`elapsed_s@${fidelity}`, row), value: shownNumber(column, row) }))
      .filter(place => place.time !== null && place.value !== null)
      .map(place => ({ ...place, n: scoredTimes.filter(time => time <= place.time).length }));
  }).sort((a, b) => a.time - b.time);
}

// The best at the highest fidelity that was reached so far.
function bestTrained(places, better) {
  let best = null;
  return places.map(place => {
    if (best === null || place.level > best.level || (place.level === best.level && (place.value - best.value) * better > 0)) best = place;
    return { ...place, best };
  });
}

// Scores with predicted weights, which all candidates have, where a study trained some of them.
const asSearched = (known, name) => known?.[`${name}@predicted`] ?? known?.[name];

function drawAnytime() {
  const figure = byId("anytime");
  const plot = figure.querySelector(".plot");
  const score = byId("anytime-score").value;
  const column = columnOf.get(`${score}@predicted`) ?? columnOf.get(score);
  const places = column ? course(column, byId("anytime-x").value === "time") : [];
  if (places.length === 0) {
    figure.querySelector(".note").textContent = "";
    return void plot.replaceChildren(element("p", { class: "empty" }, "No finished candidate has this score yet."));
  }
  const overTime = byId("anytime-x").value === "time";
  const steps = bestSoFar(places, column.better);
  const trained = bestTrained(trainedPlaces(score, places.map(place => place.time)), column.better);
  const unit = axisUnits(trained.length ? columnOf.get(score) ?? column : column);
  const show = value => value / unit.divisor;
  const lastTime = Math.max(...places.map(place => place.time), ...trained.map(place => place.time));
  const [timeDivisor, timeWord] = lastTime < 300 ? [1, "s"] : lastTime < 10800 ? [60, "min"] : [3600, "h"];
  const across = place => (overTime ? place.time / timeDivisor : place.n);

  // What random draws are known for: the control's, else the study's own.
  const control = study.control;
  const random = (control ?? study).random;
  const drawn = asSearched((control ? control.random : study.random).expected, score);
  const controlBest = asSearched(control?.best, score);
  // Over time, n draws stand where the study had scored n candidates.
  const sortedByNumber = [...places].sort((a, b) => a.n - b.n);
  const expected = [];
  if (drawn) {
    drawn.n.forEach((n, at) => {
      const x = overTime ? (n <= sortedByNumber.length ? sortedByNumber[n - 1].time / timeDivisor : null) : n;
      if (x !== null && n <= places.length) expected.push([x, drawn.value[at] * column.factor]);
    });
  }
  const controlSteps = [];
  controlBest?.n.forEach((n, at) => controlSteps.push([overTime ? controlBest.elapsed_s[at] / timeDivisor : n, controlBest.value[at] * column.factor]));
  const ownEnd = Math.max(...places.map(across), ...trained.map(across));
  const end = Math.max(ownEnd, ...controlSteps.map(point => point[0]));

  const ys = [...places.map(place => place.value), ...trained.map(place => place.value), ...expected.map(point => point[1]), ...controlSteps.map(point => point[1])].map(show);
  const fence = fenceOf(column, places.map(place => show(place.value)));
  const outside = places.filter(place => isOutside(show(place.value), fence)).length;
  const frame = frameOf(plot, overTime ? `Search time (${timeWord})` : "Scored candidates (count)", unit.label, (area, countX, countY) => ({
    x: scaleOf([0, end], area.left, area.right, { count: countX, bounds: [0, Infinity], whole: !overTime }),
    y: scaleOf(ys, area.bottom, area.top, { count: countY, bounds: boundsOf(column), fence }),
  }), `Best ${column.label} so far. Arrow keys move along the search.`);
  const at = (x, value) => [frame.x(x), frame.y(show(value))].map(place => Math.round(place * 10) / 10);
  for (const place of places) {
    const [cx, cy] = at(across(place), place.value);
    frame.marks.append(svg("circle", { class: `${isOutside(show(place.value), fence) ? "point-outside" : "point"}${passes[place.row] ? "" : " faded"}`, cx, cy, r: 2.5, "data-trial": valueOf("trial", place.row) }));
  }
  const right = frame.x(ownEnd);
  const predicted = trained.length ? ", predicted weights" : "";
  const entries = [["point", `candidate${predicted}`], ["line-best", `best so far${predicted}`]];
  if (trained.length) {
    for (const place of trained) {
      const [cx, cy] = at(across(place), place.value);
      frame.marks.append(svg("circle", { class: `point-trained${passes[place.row] ? "" : " faded"}`, cx, cy, r: 3.5, "data-trial": valueOf("trial", place.row) }));
    }
    frame.marks.append(svg("path", { class: "line-trained", d: stairs(trained.map(place => at(across(place), place.best.value)), right) }));
    entries.push(["point-trained", "candidate, trained weights"], ["line-trained", `best of those trained longest (at last ${trained.at(-1).best.fidelity})`]);
  }
  if (controlSteps.length) {
    frame.marks.append(svg("path", { class: "line-control", d: stairs(controlSteps.map(point => at(...point))) }));
    entries.push(["line-control", `control: ${control.name} (${control.strategy})`]);
  }
  if (expected.length > 1) {
    frame.marks.append(svg("path", { class: "line-random", d: line(expected.map(point => at(...point))) }));
    entries.push(["line-random", "random search, expected"]);
    const [lastX, lastY] = at(...expected.at(-1));
    if (drawn.n.at(-1) < places.length) {
      frame.marks.append(svg("path", { class: "line-bound", d: `M${lastX} ${lastY}H${right}` }));
      entries.push(["line-bound", "random search, at least"]);
    }
  }
  const stepPoints = steps.map(step => ({ ...step, at: at(across(step), step.best.value) }));
  frame.marks.append(svg("path", { class: "line-best", d: stairs(stepPoints.map(point => point.at), right) }));
  if (outside) entries.push(["point-outside", `far off, drawn at the edge (${outside})`]);
  legend(figure, entries);
  figure.querySelector(".note").textContent = anytimeNote(column, drawn, random, control, places.length);
  hover(frame.root, stepPoints, px => stepPoints.reduce((best, point) => (Math.abs(point.at[0] - px) < Math.abs(best.at[0] - px) ? point : best)), (point, clientX, clientY) => {
    const [cx, cy] = point.at;
    frame.over.replaceChildren(svg("path", { class: "rule", d: `M${cx} ${frame.area.top}V${frame.area.bottom}` }), svg("circle", { class: "ring", cx, cy, r: 6 }));
    const lines = [`${point.n} scored, ${point.time.toFixed(1)} s`, `best so far${predicted}: ${formatWithError(column, point.best.row)} (trial ${valueOf("trial", point.best.row)})`, `trial ${valueOf("trial", point.row)}: ${format(column, point.row)}`];
    const reached = trained.filter(place => place.time <= point.time).at(-1)?.best;
    if (reached) lines.push(`best of those trained longest, ${reached.fidelity}: ${reached.value.toFixed(column.digits ?? 0)} ${column.unit} (trial ${valueOf("trial", reached.row)})`);
    const known = drawn ? drawn.n.filter(n => n <= point.n).length : 0;
    if (known) lines.push(`random search, ${point.n > drawn.n.at(-1) ? "at least" : "expected"}: ${(drawn.value[known - 1] * column.factor).toFixed(column.digits ?? 0)} ${column.unit}`);
    showTooltip(lines, clientX, clientY);
  }, () => frame.over.replaceChildren(), point => openTrial(point.best.row));
}

function anytimeNote(column, drawn, random, control, scored) {
  const whose = control ? `the control ${control.name}` : "this study itself";
  if (!drawn) return `No expectation of random search: ${whose} has fewer than two random candidates with this score. A study with --strategy random can be given as --control.`;
  const origin = control ? `the ${random.trials} random candidates of ${control.name}` : study.strategy === "random" ? `the ${random.trials} candidates of this study, all of them random` : `the ${random.trials} candidates of this study that were drawn at random before the search began to learn`;
  const beyond = random.trials < scored ? ` Beyond ${random.trials} draws nothing is known but that it does not get worse (dotted)${control ? "" : "; a study with --strategy random, given as --control, tells more"}.` : "";
  return `Random search: mean best of n draws without replacement from ${origin} (exact, unbiased).${beyond}`;
}

function initAnytime() {
  const choices = scoreColumns.filter(column => column.better);
  fillSelect(byId("anytime-score"), choices.map(column => [column.name, withUnit(column)]), study.target);
  // Training comes after most candidates were scored: over their count it would stand at one place.
  if (columns.some(column => column.name.startsWith("elapsed_s@"))) byId("anytime-x").value = "time";
  for (const id of ["anytime-score", "anytime-x"]) byId(id).addEventListener("change", drawAnytime);
}
