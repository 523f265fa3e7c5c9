// Joins the parts: theme, controls, filters, and drawing anew when the window changes.

const darkByDefault = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return (document.documentElement.dataset.theme ?? (darkByDefault.matches ? "dark" : "light")) === "dark";
}

function labelTheme() {
  byId("theme").textContent = isDark() ? "Light mode" : "Dark mode";
}

function initTheme() {
  // A page opened from a file may have no storage; the choice then lasts as long as the page.
  try {
    const kept = localStorage.getItem("foretell-theme");
    if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
  } catch { /* nothing was kept */ }
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("foretell-theme", document.documentElement.dataset.theme); } catch { /* not kept */ }
    labelTheme();
  });
  darkByDefault.addEventListener("change", labelTheme);
  labelTheme();
}

function initControls() {
  for (const [id, move] of [["first", () => 0], ["previous", page => page - 1], ["next", page => page + 1], ["last", () => pages() - 1]]) {
    byId(id).addEventListener("click", () => { table.page = move(table.page); drawTable(); });
  }
  byId("rows").addEventListener("change", () => { table.page = 0; drawTable(); });
  byId("filter-text").addEventListener("input", event => { filter.text = event.target.value; refilter(); });
  byId("filter-clear").addEventListener("click", () => {
    filter.text = byId("filter-text").value = "";
    filter.ranges.clear();
    refilter();
  });
}

for (const section of document.querySelectorAll(".needs-script")) section.hidden = false;
initTheme();
initControls();
rangeInputs();
columnChoices();
initScatter();
initAnytime();
initParallel();

const drawCharts = () => {
  drawScatter();
  drawAnytime();
  drawParallel();
};
// Thousands of points take longer to draw than a word to type: the charts then follow when the typing rests.
let pending = 0;
function drawChartsSoon() {
  if (study.rows < 2000) return drawCharts();
  clearTimeout(pending);
  pending = setTimeout(drawCharts, 120);
}
views.push(followRanges, () => { table.page = 0; orderRows(); drawTable(); }, drawChartsSoon);
refilter();

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  drawCharts();
});
