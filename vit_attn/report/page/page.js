"use strict";
// Draws the panels of each chart, and lets a legend's button hide a line in all panels of its chart.
const charts = JSON.parse(document.getElementById("plots").textContent);
// A finger scrolls the page; zooming is then a button of the plot's bar.
const fingers = matchMedia("(pointer: coarse)").matches;
const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
const common = {
  showlegend: false, hovermode: "closest", dragmode: fingers ? false : "zoom", height: 320,
  margin: { l: 56, r: 12, t: 36, b: 48 }, font: { family: "inherit", size: 12, color: "#222" },
  hoverlabel: { bgcolor: "#fff", font: { color: "#222" } },
};

for (const chart of document.querySelectorAll(".panels")) {
  charts[chart.dataset.chart].forEach((plot, i) => {
    const title = { text: plot.title, font: { size: 14 }, x: 0.5, y: 0.98, yanchor: "top" };
    Plotly.newPlot(chart.children[i], plot.data, { ...common, title, ...plot.layout }, settings);
  });
}

for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const panel of button.closest("section").querySelectorAll(".panel")) {
      const traces = panel.data.flatMap((trace, i) => (trace.meta === button.dataset.label ? [i] : []));
      if (traces.length) Plotly.restyle(panel, { visible: shown }, traces);
    }
  });
}
