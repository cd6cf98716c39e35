"use strict";
// Draws the panels of each chart, and lets a legend's button hide a line in all panels of its chart.
const charts = JSON.parse(document.getElementById("plots").textContent);
// A finger scrolls the page; zooming is then a button of the plot's bar.
const fingers = matchMedia("(pointer: coarse)").matches;
const buttons = [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]];
const settings = { responsive: true, displaylogo: false, displayModeBar: fingers || "hover", modeBarButtons: buttons };
const common = {
  showlegend: false, hovermode: "closest", dragmode: fingers ? false : "zoom", height: 320,
  margin: { l: 56, r: 12, t: 26, b: 48 }, font: { family: "inherit", size: 12, color: "#222" },
  hoverlabel: { bgcolor: "#fff", font: { color: "#222" } },
};

// On a phone, the names of a table's rows take several lines, to leave room for the dots.
function narrowed(layout) {
  const names = layout.yaxis.categoryarray;
  if (!names || innerWidth >= 600) return layout;
  const ticktext = names.map((name) => name.replace(/: |, | (?=[γπ+]|n_hid)/g, "<br>"));
  const lines = Math.max(...ticktext.map((text) => text.split("<br>").length));
  const yaxis = { ...layout.yaxis, tickvals: names, ticktext, tickfont: { size: 10 } };
  return { ...layout, yaxis, xaxis: { ...layout.xaxis, nticks: 4 }, height: 110 + (8 + 13 * lines) * names.length };
}

for (const chart of document.querySelectorAll(".panels")) {
  const panels = chart.querySelectorAll(".panel");
  charts[chart.dataset.chart].forEach((plot, i) => {
    Plotly.newPlot(panels[i], plot.data, { ...common, ...narrowed(plot.layout) }, settings);
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
