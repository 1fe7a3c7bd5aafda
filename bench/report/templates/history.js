"use strict";
// Draws a history's page; the address holds its state.
(async () => {
  const COLOURS = {line: "#24292f", worse: "#bf5300", better: "#0072b2", quiet: "#707070", grid: "#d0d7de",
    band: "#eaeef2", range: "#bf5300"};
  const landing = document.getElementById("landing"), view = document.getElementById("trend");

  let found;
  try {
    found = await historyNumbers(document.getElementById("data").textContent);
  } catch {
    return;  // an old browser: the note stays
  }
  document.getElementById("blocked").remove();
  const {data, all, numbers, pointsOf, day, moment, span, level, change, between, amount, half, difference, changed,
    command, lockChanges, listed, changesOf, otherChanges} = found;

  // Elements; texts are set as text only.
  const fill = (element, attributes, children) => {
    for (const [name, value] of Object.entries(attributes))
      if (typeof value === "function") element.addEventListener(name, value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
    element.append(...children.filter(child => child !== null && child !== undefined));
    return element;
  };
  const h = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const s = (name, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
  const rowsOf = (header, rows, left = 1) => h("div", {class: "wide"}, h("table", {class: `${header.length ? "listed" : "facts"} left-${left}`},
    header.length ? h("thead", {}, h("tr", {}, ...header.map(cell => h("th", {scope: "col"}, cell)))) : null,
    h("tbody", {}, ...rows.map(([first, ...rest]) => h("tr", {}, h("th", {scope: "row"}, first),
      ...rest.map(cell => h("td", {}, cell)))))));
  const drawn = [];  // addresses of the CSV files of the drawn series
  const csv = (name, header, rows, kept = []) => {
    const cell = text => /[",\n]/.test(text) ? `"${String(text).replace(/"/g, '""')}"` : String(text);
    const guarded = text => /^[=+@\t\r]/.test(text) ? `'${text}` : text;  // a spreadsheet would run it
    const lines = [header, ...rows].map(row => row.map(each => cell(typeof each === "string" ? guarded(each) : each)).join(","));
    const url = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"}));
    kept.push(url);
    return h("a", {class: "button", href: url, download: `${name.replace(/[^\w.-]+/g, "-")}.csv`}, "CSV");
  };
  const rounded = (value, digits = 5) => isFinite(value) ? +value.toFixed(digits) : "";
  const significant = value => isFinite(value) ? +value.toPrecision(6) : "";
  const shownValue = (series, value) => rounded(series.difference ? value : Math.exp(value));

  const colourOf = series => series.standing === "worse" ? COLOURS.worse
    : series.standing === "better" ? COLOURS.better : COLOURS.line;
  const levelAt = (series, at) => series.levels.find(([first, last]) => at <= last) ?? series.levels.at(-1);

  const spark = (series, values, width = 130, height = 26) => {
    const there = values.filter(isFinite);
    if (!there.length) return "";
    const sorted = [...there].sort((a, b) => a - b);
    const at = share => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    let [low, high] = [at(.01), at(.99)];
    const least = series.difference ? .01 : .02;
    if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
    const x = place => 2 + (width - 4) * (values.length > 1 ? place / (values.length - 1) : .5);
    const y = value => Math.max(1, Math.min(height - 1, 3 + (height - 6) * (high - value) / (high - low)));
    const path = values.map((value, place) => isFinite(value) ? `${x(place).toFixed(1)},${y(value).toFixed(1)}` : null)
      .filter(Boolean).join(" ");
    const steps = series.levels.map(([first, last, mean]) =>
      `M${x(first).toFixed(1)},${y(mean / data.value).toFixed(1)}H${x(last).toFixed(1)}`).join("");
    return s("svg", {width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true"},
      s("polyline", {points: path, fill: "none", stroke: COLOURS.quiet, "stroke-width": .8, opacity: .7}),
      s("path", {d: steps, stroke: colourOf(series), "stroke-width": 2}),
      there.length === 1 ? s("circle", {cx: x(0), cy: y(there[0]), r: 2.5, fill: COLOURS.line}) : null);
  };
  for (const place of document.querySelectorAll("[data-series]")) {
    const at = +place.dataset.series;
    place.append(spark(all[at], pointsOf(at).map(point => point.value), innerWidth < 640 ? 96 : 130));
  }
  document.getElementById("csv").append(csv("latest-levels",
    ["series", "workload", "track", "machine", "level", "low", "high", "unit", "runs", "state", "since"],
    data.series.filter(series => series.levels.length).map(series => {
      const [first, , ...ends] = series.levels.at(-1), points = pointsOf(numbers.get(series.name));
      return [series.name, series.workload, series.track, series.machine,
        ...ends.map(each => shownValue(series, each === null ? NaN : each / data.value)),
        series.difference ? series.unit : "ratio", points.filter(point => isFinite(point.value)).length,
        series.standing, day(points[first].run)];
    })));

  // The trend of a series.
  const nice = (low, high, count) => {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(each => each * power).find(each => each >= rough);
    const ticks = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step) ticks.push(tick);
    return {ticks, digits: Math.max(0, -Math.floor(Math.log10(step)))};
  };

  const plot = (number, state, choose) => {
    const series = all[number], points = pointsOf(number), count = points.length;
    const width = Math.max(300, Math.min(1100, view.clientWidth || 1050)), left = 70, right = 10, top = 12, tall = 270;
    const inAmounts = state.show === "amount";
    const shown = point => inAmounts ? point.amount : series.difference ? point.value : Math.exp(point.value);
    const back = value => series.difference ? value : Math.exp(value);
    const x = place => left + 8 + (width - left - right - 16) * (count > 1 ? place / (count - 1) : .5);
    const kinds = {};
    for (let at = 1; at < count; at++)
      for (const [kind, told] of Object.entries(changesOf(points[at], points[at - 1]))) (kinds[kind] ??= []).push([at, told]);
    const strips = Object.entries(kinds), height = top + tall + 22 + 17 * strips.length + 4;
    const values = points.map(shown).filter(isFinite);
    const there = points.map(point => point.value).filter(isFinite);
    // A run of two blocks has an interval that would flatten all others.
    const most = Math.max(Math.max(...there) - Math.min(...there), 4 * (series.noise ?? 0) / data.value);
    const ends = inAmounts ? [] : points.flatMap(point => isFinite(half(point)) && isFinite(point.value)
      ? [-1, 1].map(side => back(point.value + side * Math.min(half(point), most))) : []);
    const sorted = ends.sort((a, b) => a - b);
    const inner = sorted.length ? [sorted[Math.floor(.02 * sorted.length)], sorted[Math.floor(.98 * (sorted.length - 1))]] : [];
    let low = Math.min(...values, ...inner), high = Math.max(...values, ...inner);
    if (!values.length) [low, high] = [0, 1];
    const newest = series.levels.at(-1), band = series.band === null ? null : series.band / data.value;
    if (!inAmounts && band !== null && newest) {
      low = Math.min(low, back(newest[2] / data.value - band));
      high = Math.max(high, back(newest[2] / data.value + band));
    }
    const pad = Math.max((high - low) * .06, Math.abs(high) * .002, 1e-9);
    [low, high] = [low - pad, high + pad];
    const y = value => top + tall * (high - value) / (high - low);
    const clipped = value => Math.max(top, Math.min(top + tall, y(value)));
    const svg = s("svg", {width, height, viewBox: `0 0 ${width} ${height}`, class: "plot", tabindex: 0, role: "group",
      "aria-label": `${series.name}: ${count} points; arrow keys choose one`});
    const scale = inAmounts && series.unit === "s" ? high < 1e-3 ? [1e6, "\u00b5s"] : high < 1 ? [1e3, "ms"] : [1, "s"]
      : [1, inAmounts || series.difference ? series.unit : ""];
    const {ticks, digits} = nice(low * scale[0], high * scale[0], 5);
    for (const tick of ticks) svg.append(
      s("line", {x1: left, x2: width - right, y1: y(tick / scale[0]), y2: y(tick / scale[0]), stroke: COLOURS.grid,
        "stroke-width": !inAmounts && tick === (series.difference ? 0 : 1) ? 1.6 : .6}),
      s("text", {x: left - 6, y: y(tick / scale[0]) + 4, "text-anchor": "end", "font-size": 12, fill: COLOURS.quiet},
        `${tick.toFixed(digits)}${scale[1] ? ` ${scale[1]}` : ""}`));
    const every = Math.max(1, Math.ceil(count / Math.max(2, Math.floor((width - left) / 110))));
    let before = "", end = -Infinity;
    for (let at = 0; at < count; at += every) {
      const told = series.members ? data.environments[points[at].environment].versions[0] : day(points[at].run);
      if (told === before || x(at) - 36 < end || x(at) > width - 40) continue;
      svg.append(s("text", {x: Math.max(x(at), left + 36), y: top + tall + 16, "font-size": 12, "text-anchor": "middle",
        fill: COLOURS.quiet}, told));
      [before, end] = [told, Math.max(x(at), left + 36) + 44];
    }
    if (!inAmounts) {
      if (band !== null && newest) {
        const [upper, lower] = [clipped(back(newest[2] / data.value + band)), clipped(back(newest[2] / data.value - band))];
        svg.append(s("rect", {x: left, width: width - left - right, y: upper, height: lower - upper, fill: COLOURS.band}));
      }
      for (const [, earliest, latest, , , , isProven] of series.steps) {
        const [from, to] = [x(earliest - 1), x(latest)];
        svg.append(s("rect", {x: from, width: Math.max(2, to - from), y: top, height: tall, fill: COLOURS.range,
          opacity: isProven ? .16 : .07}));
      }
      const bars = points.map((point, at) => isFinite(half(point)) && isFinite(point.value)
        ? `M${x(at).toFixed(1)},${clipped(back(point.value - half(point))).toFixed(1)}V${clipped(back(point.value + half(point))).toFixed(1)}` : "").join("");
      svg.append(s("path", {d: bars, stroke: COLOURS.quiet, "stroke-width": count > 250 ? .5 : 1, opacity: count > 800 ? .15 : .55}));
    } else {
      let line = "", machine = null;
      points.forEach((point, at) => {
        if (!isFinite(point.amount)) return;
        line += `${data.runs.machines[point.run] === machine ? "L" : "M"}${x(at).toFixed(1)},${y(point.amount).toFixed(1)}`;
        machine = data.runs.machines[point.run];
      });
      svg.append(s("path", {d: line, fill: "none", stroke: COLOURS.grid, "stroke-width": 1.2}));
    }
    const radius = count > 400 ? 1.6 : count > 120 ? 2.4 : 3.4;
    points.forEach((point, at) => {
      const value = shown(point);
      if (!isFinite(value)) svg.append(s("text", {x: x(at), y: top + tall - 4, "text-anchor": "middle", "font-size": 13,
        fill: COLOURS.worse}, "\u00d7"));
      else svg.append(s("circle", {cx: x(at).toFixed(1), cy: y(value).toFixed(1), r: radius,
        fill: point.verdict === "INCONCLUSIVE" ? "#fff" : point.verdict === "PASS" ? COLOURS.better : COLOURS.worse,
        stroke: point.verdict === "INCONCLUSIVE" ? COLOURS.quiet : "none"},
        count > 400 ? null : s("title", {}, `${day(point.run)}, ${data.environments[point.environment].label}: ${inAmounts ? amount(series, value) : level(series, point.value)}`)));
    });
    if (!inAmounts) for (const [first, last, mean] of series.levels) svg.append(s("path", {stroke: COLOURS.line, "stroke-width": 2,
      d: `M${x(first)},${y(back(mean / data.value))}H${Math.max(x(last), x(first) + 2)}`}));
    strips.forEach(([kind, found], row) => {
      const at = top + tall + 24 + 17 * row;
      svg.append(s("text", {x: left - 6, y: at + 11, "text-anchor": "end", "font-size": 11, fill: COLOURS.quiet}, kind),
        s("line", {x1: left, x2: width - right, y1: at + 7, y2: at + 7, stroke: COLOURS.grid, "stroke-width": .6}),
        ...found.map(([place, told]) => s("path", {d: `M${x(place)},${at + 1}v12`, stroke: COLOURS.line,
          "stroke-width": count > 250 ? 1 : 2.4}, s("title", {}, `${told} (${day(points[place].run)})`))));
    });
    for (const [place, dash] of [[state.with, "3 2"], [state.point, null]])
      if (points[place]) svg.append(
        s("line", {x1: x(place), x2: x(place), y1: top, y2: height - 4, stroke: COLOURS.line, "stroke-width": .8, "stroke-dasharray": dash}),
        isFinite(shown(points[place])) ? s("circle", {cx: x(place), cy: y(shown(points[place])), r: radius + 3.5, fill: "none",
          stroke: COLOURS.line, "stroke-width": 1.8, "stroke-dasharray": dash}) : null);
    svg.addEventListener("click", event => {
      const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) * width / box.width;
      const place = Math.round((at - left - 8) / (width - left - right - 16) * (count - 1));
      choose(Math.max(0, Math.min(count - 1, place || 0)), event.shiftKey);
    });
    svg.addEventListener("keydown", event => {
      const now = state.point ?? count;
      const to = {ArrowLeft: now - 1, ArrowRight: state.point === null ? 0 : now + 1, Home: 0, End: count - 1,
        PageUp: now - 10, PageDown: now + 10}[event.key];
      if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      choose(Math.max(0, Math.min(count - 1, to)), false, true);
    });
    return svg;
  };

  const detail = (number, place, go) => {
    const series = all[number], points = pointsOf(number), point = points[place];
    const environment = data.environments[point.environment], own = all[point.series];
    const base = data.runs.baselines[point.run];
    const before = points.slice(0, place).findLast(each => isFinite(each.value));
    const interval = isFinite(half(point)) ? ` (95 % interval ${between(series, level, point.value - half(point), point.value + half(point))})` : "";
    const rows = [
      ["value", `${level(series, point.value)}${interval}, ${point.blocks} ${series.unit === "points" ? "seed" : "block"}${point.blocks === 1 ? "" : "s"}`],
      ["against", `${data.environments[series.baseline].label}${point.link === 0 ? ""
        : `, chained from ${data.environments[base].label} (standard error ${(100 * point.link).toFixed(2)} %)`}`],
      ["verdict of the run", point.verdict],
      ["level here", series.levels.length ? level(series, levelAt(series, place)[2] / data.value) : "no value"],
      series.difference ? null : ["takes", amount(series, point.amount) + (series.stepwise && series.unit === "s" ? " a step" : "")],
      ["to the point before", before ? changed(series, point, before) : "it is the first point"],
      ["packages since then", before ? listed(lockChanges(point.environment, before.environment), "the same lock") : ""],
      before ? ["other changes", otherChanges(point, before)] : null,
      ["environment", `${environment.label}; requested as ${environment.request}`],
      ["run", `${moment(point.run)}, ${data.runs.paths[point.run]}`],
      series.members ? ["series by date", h("a", {href: go({series: own.name})}, own.name)] : null,
      ["repeat", h("code", {}, command(series, point))],
    ].filter(Boolean);
    return h("div", {}, h("h3", {}, `${day(point.run)}: ${environment.label}`), rowsOf([], rows, "all"));
  };

  const comparison = (number, one, two) => {
    const series = all[number], points = pointsOf(number);
    const [first, second] = [points[Math.min(one, two)], points[Math.max(one, two)]];
    const {value, low, high} = difference(second, first);
    const told = series.difference ? changed(series, second, first) : `${Math.exp(value).toFixed(4)}`
      + (isFinite(low) ? ` (95 % interval ${Math.exp(low).toFixed(4)} to ${Math.exp(high).toFixed(4)})` : " (no interval: below two blocks)");
    return h("div", {}, h("h3", {}, `${day(first.run)} and ${day(second.run)}`), rowsOf([], [
      [series.difference ? "difference" : "ratio", isFinite(value) ? told : "not known: a point has no value"],
      ["from", `${data.environments[first.environment].label}: ${level(series, first.value)}`],
      ["to", `${data.environments[second.environment].label}: ${level(series, second.value)}`],
      ["packages", listed(lockChanges(second.environment, first.environment), "the same lock")],
      ["other changes", otherChanges(second, first)],
    ], "all"));
  };

  const stepTable = (number, choose) => {
    const series = all[number], points = pointsOf(number);
    const rows = series.steps.map(([at, earliest, latest, value, low, high, isProven, reason]) => {
      const from = points.slice(0, earliest).findLast(each => isFinite(each.value));
      const range = series.members
        ? `${data.environments[from.environment].label} to ${data.environments[points[latest].environment].label}`
        : span(from.run, points[latest].run);
      return [h("button", {type: "button", click: () => choose(at, false)}, change(series, value / data.value)),
        low === null ? "" : between(series, change, low / data.value, high / data.value), range,
        reason ? `accepted: ${reason}` : isProven ? value > 0 ? "worse" : "better" : "not proven: within the error of the chained baseline",
        series.members || reason || !isProven ? "" : h("details", {}, h("summary", {}, "accept"),
          h("pre", {}, `[[step]]\nseries = ${JSON.stringify(series.name)}\ndate = ${day(points[at].run)}\nreason = ""`))];
    });
    if (!rows.length) return h("p", {}, series.tested ? "No change was found." : "Too few runs to look for a change.");
    return rowsOf(["step", "95 % interval", "between", "state", ""], rows);
  };

  const allPoints = number => {
    const series = all[number], points = pointsOf(number);
    const header = ["date", "environment", series.difference ? "difference" : "ratio", "low", "high", "blocks", "verdict", "level", "amount", "run"];
    const rows = points.map((point, at) => [moment(point.run), data.environments[point.environment].label,
      shownValue(series, point.value), shownValue(series, point.value - half(point)), shownValue(series, point.value + half(point)),
      point.blocks, point.verdict, series.levels.length ? shownValue(series, levelAt(series, at)[2] / data.value) : "",
      significant(point.amount), data.runs.paths[point.run]]);
    const details = h("details", {}, h("summary", {}, h("span", {}, "All points as a table")));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1)
        details.append(rowsOf(header, rows.map(row => row.map(String)), 2));
    });
    return [h("p", {}, csv(series.name, header, rows, drawn)), details];
  };

  // State in the address: series, point, point to compare with, ratio or amount.
  const read = () => {
    const given = new URLSearchParams(location.hash.slice(1).replace(/\+/g, "%2B"));
    const place = name => /^\d+$/.test(given.get(name) ?? "") ? +given.get(name) : null;
    return {series: given.get("series"), point: place("point"), with: place("with"), show: given.get("show")};
  };
  const write = state => "#" + Object.entries(state).filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");

  const draw = (focus = null) => {
    const state = read(), number = numbers.get(state.series);
    landing.hidden = number !== undefined;
    view.hidden = number === undefined;
    view.replaceChildren();
    drawn.splice(0).forEach(url => URL.revokeObjectURL(url));
    if (number === undefined) {
      document.title = "Training speed: history";
      return;
    }
    const series = all[number], points = pointsOf(number);
    if (!points[state.point]) state.point = null;
    if (!points[state.with] || state.point === null) state.with = null;
    document.title = series.name;
    const to = (changes, keeps = null) => {
      history.replaceState(null, "", write({...state, ...changes}));
      draw(keeps);
    };
    const choose = (place, isSecond, fromKeys = false) =>
      to(isSecond && state.point !== null ? {with: place} : {point: place}, fromKeys ? "plot" : null);
    const canCompare = state.point !== null;
    const other = series.members
      ? all[pointsOf(number).at(-1).series]
      : data.versions.find((each, at) => each.machine === series.machine && each.workload === series.workload
        && pointsOf(data.series.length + at).some(point => point.series === number));
    const pressed = (on, text, click, focusName) => h("button", {type: "button", "aria-pressed": on, click, "data-focus": focusName}, text);
    const newest = series.levels.at(-1);
    const band = series.band === null ? "; no run of the baseline against itself shows the noise"
      : `; grey: noise of ${series.equal} runs of the baseline against itself`;
    view.append(
      h("nav", {"aria-label": "history"}, h("a", {href: "#", "data-focus": "back"}, "\u2190 all series"),
        other ? h("span", {}, pressed(!series.members, "by date", () => series.members && (location.hash = write({series: other.name})), "date"), " ",
          pressed(Boolean(series.members), "by version", () => series.members || (location.hash = write({series: other.name})), "version")) : null,
        series.difference ? null : h("span", {}, pressed(state.show !== "amount", "ratio", () => to({show: null}, "ratio"), "ratio"), " ",
          pressed(state.show === "amount", series.unit === "s" ? "time on this machine" : "memory on this machine", () => to({show: "amount"}, "amount"), "amount"))),
      h("h2", {tabindex: -1, "data-focus": "title"}, series.name),
      h("p", {class: series.standing === "worse" ? "worse-text" : series.standing === "better" ? "better-text" : ""},
        newest ? `Latest level ${level(series, newest[2] / data.value)}`
          + (newest[3] === null ? "" : ` (95 % interval ${between(series, level, newest[3] / data.value, newest[4] / data.value)})`)
          + ` against ${data.environments[series.baseline].label}, since ${series.members ? data.environments[points[newest[0]].environment].label : day(points[newest[0]].run)}`
          + (series.standing ? `: ${series.standing}` : "") : "No run has a value."),
      plot(number, state, choose),
      h("p", {class: "legend"}, state.show === "amount"
        ? "Absolute times differ between machines: the line breaks where the machine changed."
        : `Points with 95 % intervals: blue PASS, orange FAIL, white INCONCLUSIVE, \u00d7 no value; lines: levels; orange areas: ranges of changes${band}.`),
      h("nav", {"aria-label": "points"},
        h("button", {type: "button", "data-focus": "earlier", click: () => choose(Math.max(0, (state.point ?? points.length) - 1), false) || refocus("earlier")}, "\u2039 earlier"),
        h("button", {type: "button", "data-focus": "later", click: () => choose(Math.min(points.length - 1, (state.point ?? -1) + 1), false) || refocus("later")}, "later \u203a"),
        h("button", {type: "button", "data-focus": "compare", disabled: canCompare ? null : "",
          click: () => to({with: state.with === null ? state.point : null}, "compare")},
          state.with === null ? "compare from here" : "end comparison"),
        canCompare ? h("span", {class: "legend"}, state.with === state.point ? "Choose the other point." : "") : null),
      h("div", {class: "side", "aria-live": "polite"},
        state.with !== null && state.with !== state.point ? comparison(number, state.with, state.point) : null,
        state.point === null ? null : detail(number, state.point, write)),
      h("h3", {}, "Changes"), stepTable(number, choose), ...allPoints(number));
    if (focus) refocus(focus);
  };
  const refocus = name => (name === "plot" ? view.querySelector(".plot") : view.querySelector(`[data-focus="${name}"]`))?.focus();

  addEventListener("hashchange", () => { draw("title"); scrollTo(0, 0); });
  let wide = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; draw(); } });
  addEventListener("keydown", event => {
    if (event.key === "Escape" && !view.hidden) location.hash = "";
  });
  draw();
})();
