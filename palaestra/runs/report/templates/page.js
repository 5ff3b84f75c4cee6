"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const DASHES = ["dash", "dot", "dashdot", "longdash", "longdashdot"];

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const hue = (i) => colour(`--hue-${i % 8}`);
  const faded = (hex, alpha) => {
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
    return `rgba(${r},${g},${b},${alpha})`;
  };

  function seriesTraces(series, i) {
    const ink = hue(i);
    const group = `series-${i}`;
    const hover = "%{y:.4~g} at %{x:,} steps";
    const band = series.band;
    const traces = (band && series.lines.length === 1 ? [] : series.lines).map((line) => ({
      x: line.x, y: line.y, type: "scatter", mode: line.x.length > 1 ? "lines" : "markers",
      name: band ? line.name : series.label, legendgroup: group, showlegend: !band,
      line: { color: band ? faded(ink, 0.35) : ink, width: band ? 0.8 : 1.8 },
      marker: { color: ink }, ...(band ? { hoverinfo: "skip" } : { hovertemplate: hover }),
    }));
    if (!band) return traces;
    const { x, mean, low, high, over } = band;
    traces.unshift({
      x: x.concat([...x].reverse()), y: high.concat([...low].reverse()), type: "scatter",
      mode: "lines", fill: "toself", fillcolor: faded(ink, 0.16), line: { width: 0 },
      hoverinfo: "skip", showlegend: false, legendgroup: group, name: "95 % interval",
    });
    traces.push({
      x, y: mean, customdata: low.map((value, j) => [value, high[j]]), type: "scatter",
      mode: x.length > 1 ? "lines" : "markers", name: `${series.label} (${over})`,
      legendgroup: group, line: { color: ink, width: 2.2 }, marker: { color: ink },
      hovertemplate: "%{y:.4~g} [%{customdata[0]:.4~g}, %{customdata[1]:.4~g}] at %{x:,} steps",
    });
    return traces;
  }

  function levelTraces(chart, first) {
    const xs = chart.series.flatMap((s) => s.lines.flatMap((line) => line.x));
    const ends = [Math.min(0, ...xs), Math.max(...xs)];
    return chart.levels.map((level, j) => ({
      x: ends, y: [level.value, level.value], type: "scatter", mode: "lines", name: level.label,
      line: { color: faded(hue(first + j), 0.9), width: 1.4, dash: DASHES[j % DASHES.length] },
      hovertemplate: "%{y:.4~g}",
    }));
  }

  function draw(element) {
    const chart = data.charts[Number(element.dataset.chart)];
    const lines = chart.series.flatMap(seriesTraces);
    if (chart.section === "evaluation") {
      for (const line of lines) if (!line.fill) line.mode = "lines+markers";
    }
    const traces = lines.concat(levelTraces(chart, chart.series.length));
    const axis = {
      gridcolor: colour("--grid"), linecolor: colour("--line"), zeroline: false, automargin: true,
      tickfont: { size: 11 },
    };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("--ink") },
      margin: { l: 8, r: 8, t: 6, b: 8 }, hovermode: "x unified", dragmode: "zoom",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--ink") },
      hoverlabel: { bgcolor: colour("--panel"), bordercolor: colour("--line"), namelength: 40,
        font: { color: colour("--ink") } },
      xaxis: { ...axis, title: { text: "agent steps", font: { size: 11 }, standoff: 6 },
        rangemode: "tozero", nticks: 6 },
      yaxis: { ...axis, nticks: 6 },
      legend: { orientation: "h", x: 0, xanchor: "left", y: -0.24, yanchor: "top",
        font: { size: 11 } },
      showlegend: traces.filter((trace) => trace.showlegend !== false).length > 1,
    };
    const config = {
      responsive: true, displaylogo: false,
      displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false,
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "pan2d"],
      toImageButtonOptions: { filename: chart.metric.replace(/\W+/g, "-"), scale: 2 },
    };
    return Plotly.react(element, traces, layout, config);
  }

  const visible = () => [...document.querySelectorAll(".plot")].filter((e) => e.offsetParent !== null);
  const drawVisible = () => visible().forEach(draw);
  drawVisible();
  dark.addEventListener("change", drawVisible);
  for (const details of document.querySelectorAll("details")) {
    details.addEventListener("toggle", () => {
      if (details.open) details.querySelectorAll(".plot").forEach(draw);
    });
  }

  for (const link of document.querySelectorAll('a[href^="#run-"]')) {
    link.addEventListener("click", () => {
      document.getElementById(link.hash.slice(1)).closest("details").open = true;
    });
  }

  function sort(button) {
    const header = button.closest("th");
    const table = header.closest("table");
    const column = [...header.parentNode.children].indexOf(header);
    const direction = header.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const key = (row) => row.children[column].dataset.value;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = Number.isNaN(Number(x)) ? x.localeCompare(y) : Number(x) - Number(y);
      return direction === "ascending" ? order : -order;
    };
    const body = table.tBodies[0];
    [...body.rows].sort(compare).forEach((row) => body.append(row));
  }
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(button));
  }

  for (const trace of document.querySelectorAll(".trace")) {
    const readout = trace.querySelector(".readout");
    const show = (event) => {
      const cell = event.target.closest(".hit");
      if (cell === null) return;
      for (const other of trace.querySelectorAll(".hit.on")) other.classList.remove("on");
      cell.classList.add("on");
      readout.textContent = cell.title;
    };
    trace.addEventListener("pointerover", show);
    trace.addEventListener("click", show);
  }
})();
