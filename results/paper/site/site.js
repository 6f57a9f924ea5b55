"use strict";

// The pages of the result site and the viewer of meshes. Data come in as scripts that call
// `crystalmesh.data`, so that all works from a folder on disk.

const crystalmesh = (() => {
  const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';
  const INK = "#1b1f24", SOFT = "#57606a", LINE = "#d5dae0";
  const CONFIG = { displaylogo: false, responsive: true };
  const stored = new Map(), awaited = new Map();

  // Data ---------------------------------------------------------------------------------------

  function data(name, content) {
    stored.set(name, content);
  }

  /** What a script of data/ holds, loaded when first asked for. */
  function load(name) {
    if (stored.has(name)) return Promise.resolve(stored.get(name));
    if (!awaited.has(name)) {
      awaited.set(name, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = `data/${name}.js`;
        script.onload = () => resolve(stored.get(name));
        script.onerror = () => reject(new Error(`data/${name}.js is missing`));
        document.head.append(script);
      }));
    }
    return awaited.get(name);
  }

  const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const DIGIT = new Map([...BASE64].map((character, i) => [character, i]));

  /** Whole numbers from the base64 VLQ of source maps. */
  function unpack(text) {
    const numbers = [];
    let value = 0, factor = 1;
    for (const character of text) {
      const digit = DIGIT.get(character);
      value += (digit & 31) * factor;
      factor *= 32;
      if (digit < 32) {
        numbers.push(value % 2 ? -(value - 1) / 2 : value / 2);
        value = 0;
        factor = 1;
      }
    }
    return numbers;
  }

  /** Numbers from the steps between them. */
  function sums(steps) {
    let sum = 0;
    return steps.map((step) => (sum += step));
  }

  // Elements of the page -----------------------------------------------------------------------

  function make(tag, attributes = {}, ...inner) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...inner);
    return element;
  }

  const at = (selector, within = document) => within.querySelector(selector);
  const count = (n) => n.toLocaleString("en-US");
  const signed = (x, digits) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
  const plain = (x, digits) => (x < 0 ? "−" : "") + Math.abs(x).toFixed(digits);

  function row(cells, left = 0) {
    return make("tr", {}, ...cells.map((c, i) => make("td", i < left ? { class: "left" } : {}, c)));
  }

  /** A table of two columns: what, and its value. */
  function facts(pairs) {
    const body = make("tbody", {}, ...pairs.map(([name, value]) =>
      make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value))));
    return make("div", { class: "scroll" }, make("table", { class: "facts" }, body));
  }

  function table(heads, rows, left) {
    const head = make("tr", {}, ...heads.map((text, i) =>
      make("th", i < left ? { scope: "col", class: "left" } : { scope: "col" }, text)));
    const made = make("table", {}, make("thead", {}, head),
      make("tbody", {}, ...rows.map((cells) => row(cells, left))));
    sortable(made);
    return make("div", { class: "scroll" }, made);
  }

  // Tables -------------------------------------------------------------------------------------

  /** The number a cell begins with; null for words. */
  function number(text) {
    const match = /^[−-]?[\d,]*\.?\d+/.exec(text.trim());
    return match ? Number(match[0].replace(/,/g, "").replace("−", "-")) : null;
  }

  function sortable(one) {
    const heads = [...one.tHead.rows].at(-1).cells;
    [...heads].forEach((head, column) => {
      const button = make("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        [...heads].forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const texts = (r) => r.cells[column].textContent.trim();
        const rows = [...one.tBodies[0].rows];
        const missing = (text) => text === "" || text === "–";
        rows.sort((a, b) => {
          const [x, y] = [texts(a), texts(b)];
          if (missing(x) || missing(y)) return missing(x) - missing(y); // last, either way
          const [m, n] = [number(x), number(y)];
          const order = m !== null && n !== null ? m - n : x.localeCompare(y, "en");
          return down ? -order : order;
        });
        one.tBodies[0].append(...rows);
        one.classList.add("sorted");
      });
    });
  }

  // Charts -------------------------------------------------------------------------------------

  const axis = (title, more = {}) => ({
    title: { text: title, standoff: 8 }, gridcolor: "#eceff2", linecolor: "#8b949e", zeroline: false,
    showline: true, ticks: "outside", tickcolor: "#8b949e", ticklen: 4, automargin: true, ...more,
  });

  const layout = (more) => ({
    font: { family: FONT, size: 13, color: INK }, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
    margin: { l: 60, r: 16, t: 34, b: 52 }, hoverlabel: { font: { family: FONT, size: 13 }, align: "left" },
    ...more,
  });

  const config = { ...CONFIG, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

  /** The range of the middle 99.8 % of values, a little widened: one outlier is no axis. */
  function limits(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const low = sorted[Math.floor(0.001 * (sorted.length - 1))];
    const high = sorted[Math.ceil(0.999 * (sorted.length - 1))];
    const margin = 0.04 * (high - low) || 1;
    return [low - margin, high + margin];
  }

  // Experiments --------------------------------------------------------------------------------

  const summary = () => stored.get("summary");
  const chosen = () => decodeURIComponent(location.hash.slice(1));
  const named = (name) => summary().experiments.find((e) => e.name === name);

  const label = (e) => `${e.title}, ${count(e.n_train)} crystals`;

  /** Fill a select; group names lead to lists of [value, text]. */
  function options(select, groups) {
    select.replaceChildren(...Object.entries(groups).map(([group, items]) => {
      const inner = items.map(([value, text]) => make("option", { value }, text));
      return group ? make("optgroup", { label: group }, ...inner) : inner[0];
    }));
  }

  const tasksWith = (experiments) =>
    Object.entries(summary().tasks).filter(([name]) => experiments.some((e) => e.task === name));

  /** A select of tasks and one of the task's experiments; the address tells which. */
  function pick(act) {
    const task = at("#task"), experiment = at("#experiment"), every = summary().experiments;
    task.append(...tasksWith(every).map(([name, t]) => make("option", { value: name }, t.title)));
    const fill = () => {
      const splits = {};
      for (const e of every.filter((one) => one.task === task.value)) {
        (splits[e.split] ??= []).push([e.name, `${label(e)}: ${e.shown}`]);
      }
      options(experiment, splits);
    };
    const go = () => {
      history.replaceState(null, "", `#${experiment.value}`);
      act(named(experiment.value));
    };
    const come = () => {
      const one = named(chosen()) ?? every[0];
      task.value = one.task;
      fill();
      experiment.value = one.name;
      go();
    };
    task.addEventListener("change", () => { fill(); go(); });
    experiment.addEventListener("change", go);
    window.addEventListener("hashchange", come);
    come();
  }

  /** Test crystals of an experiment: id, formula, fold, target, prediction. */
  async function tested(e) {
    const [names, set, own] = await Promise.all(
      [load(`crystals-${e.dataset}`), load(`sets/${e.set}`), load(`experiments/${e.name}`)]);
    const task = summary().tasks[e.task], formulas = names.formulas.split(" ");
    const ids = names.ids?.split(" ") ?? sums(unpack(names.numbers)).map((n) => names.prefix + n);
    const targets = unpack(set.targets), errors = unpack(own.errors);
    const folds = set.folds.flatMap(([fold, n]) => Array(n).fill(fold));
    return sums(unpack(set.crystals)).map((place, i) => ({
      id: ids[place], formula: formulas[place], fold: folds[i], target: targets[i] * task.step,
      prediction: (targets[i] + errors[i]) * task.step, error: errors[i] * task.step,
    }));
  }

  // Parity -------------------------------------------------------------------------------------

  function parity() {
    let latest;
    pick(async (e) => {
      latest = e.name;
      const rows = await tested(e), task = summary().tasks[e.task];
      if (latest !== e.name) return;
      at("#heading").textContent = `${task.title}: ${e.title}`;
      at("#facts").replaceChildren(facts([
        [`test ${e.metric}`, `${e.shown} ${task.unit}`],
        ...(e.spread ? [[`each ${e.over}`, e.spread]] : []),
        ...(task.classes ? [] : quantiles(rows, task)),
        [task.classes ? "90 % sets hold" : "90 % intervals hold", `${(100 * e.coverage).toFixed(1)} % of the test crystals`],
        ["crystals", `${count(e.n_train)} train, ${count(e.n_val)} validation, ${count(e.n_test)} test`],
        ["split", e.split],
        ["experiment", make("a", { href: `experiments.html#${e.name}` }, e.name)],
      ]));
      (task.classes ? confusion : scatter)(rows, e, task);
      crystals(rows, task);
    });
  }

  function quantiles(rows, task) {
    const sorted = rows.map((r) => Math.abs(r.error)).sort((a, b) => a - b);
    const below = (share) => `${plain(sorted[Math.ceil(share * sorted.length) - 1], 4)} ${task.unit}`;
    return [["half of the errors up to", below(0.5)], ["95 % of the errors up to", below(0.95)]];
  }

  const many = (rows) => rows.some((r) => r.fold !== rows[0].fold);

  function hover(r, task, folds) {
    const value = (x) => (task.classes ? `${x}` : plain(x, 4));
    const error = task.classes ? (r.error ? "wrong" : "right") : `error ${signed(r.error, 4)} ${task.unit}`;
    return `<b>${r.formula}</b> (${r.id}${folds ? `, fold ${r.fold}` : ""})<br>target ${value(r.target)}` +
      `<br>prediction ${value(r.prediction)}<br>${error}`;
  }

  function scatter(rows, e, task) {
    const folds = many(rows), range = limits(rows.flatMap((r) => [r.target, r.prediction]));
    const beyond = rows.filter((r) => [r.target, r.prediction].some((x) => x < range[0] || x > range[1]));
    const points = {
      type: rows.length > 3000 ? "scattergl" : "scatter", mode: "markers",
      x: rows.map((r) => r.target), y: rows.map((r) => r.prediction),
      text: rows.map((r) => hover(r, task, folds)), hoverinfo: "text",
      marker: { color: e.colour, size: rows.length > 3000 ? 4 : 6, opacity: rows.length > 3000 ? 0.3 : 0.5 },
    };
    const line = {
      type: points.type, mode: "lines", x: range, y: range, hoverinfo: "skip", line: { color: INK, width: 1 },
    };
    Plotly.react("chart", [line, points], layout({
      showlegend: false, hovermode: "closest", dragmode: "zoom",
      xaxis: axis(`target / ${task.unit}`, { range, constrain: "domain" }),
      yaxis: axis(`prediction / ${task.unit}`, { range, scaleanchor: "x", constrain: "domain" }),
    }), config);
    at("#note").textContent = `${count(rows.length)} test predictions; the line is equality.` +
      (beyond.length ? ` ${count(beyond.length)} of them are outside of the axes: zoom out to see them.` : "") +
      (new Set(rows.map((r) => r.id)).size < rows.length ? " A crystal that several folds test is there once for each." : "");
    at("#classes").replaceChildren();
  }

  function confusion(rows, e, task) {
    const tally = new Map();
    for (const r of rows) tally.set(r.target, (tally.get(r.target) ?? 0) + 1);
    const order = [...tally].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([name]) => name);
    const top = order.slice(0, 16).sort((a, b) => a - b), names = [...top.map(String), "other"];
    const place = (x) => (top.includes(x) ? top.indexOf(x) : top.length);
    const counts = names.map(() => names.map(() => 0));
    for (const r of rows) counts[place(r.target)][place(r.prediction)] += 1;
    const totals = counts.map((line) => line.reduce((a, b) => a + b, 0) || 1);
    const share = counts.map((line, i) => line.map((n) => (100 * n) / totals[i]));
    Plotly.react("chart", [{
      type: "heatmap", x: names, y: names, z: share, zmin: 0, zmax: 100, xgap: 1, ygap: 1,
      colorscale: [[0, "#ffffff"], [0.25, "#cfe0ee"], [0.5, "#8fb8d9"], [0.75, "#3f82b5"], [1, "#0b4f86"]],
      text: counts.map((line) => line.map((n) => n || "")), texttemplate: "%{text}", textfont: { size: 10 },
      hovertemplate: `true %{y}, predicted %{x}<br>%{text} crystals, %{z:.0f} % of the row<extra></extra>`,
      colorbar: { title: { text: "% of the row", side: "right" }, thickness: 12, len: 0.7, outlinewidth: 0 },
    }], layout({
      xaxis: axis(`predicted ${task.title}`, { type: "category", tickangle: -60, showgrid: false }),
      yaxis: axis(`true ${task.title}`, { type: "category", autorange: "reversed", showgrid: false }),
    }), config);
    at("#note").textContent = `Counts of ${count(rows.length)} test crystals among the ${top.length} most frequent ` +
      "classes; “other” is every other class, so its diagonal holds right and wrong ones.";
    const lines = order.map((name) => {
      const own = rows.filter((r) => r.target === name), wrong = new Map();
      for (const r of own) if (r.error) wrong.set(r.prediction, (wrong.get(r.prediction) ?? 0) + 1);
      const worst = [...wrong].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0];
      const right = own.filter((r) => !r.error).length;
      return [`${name}`, count(own.length), count(right), ((100 * right) / own.length).toFixed(1),
        worst ? `${worst[0]} (${worst[1]})` : "–"];
    });
    at("#classes").replaceChildren(
      make("h2", {}, "Accuracy by class"),
      table([task.title, "test crystals", "right", "accuracy / %", "most often taken for"], lines, 0));
  }

  /** The test crystals as a table: those that are searched for, or the worst. */
  function crystals(rows, task) {
    const field = at("#find"), folds = many(rows);
    const worst = [...rows].sort((a, b) => Math.abs(b.error) - Math.abs(a.error));
    const value = (x) => (task.classes ? `${x}` : plain(x, 4));
    const fill = () => {
      const words = field.value.trim().toLowerCase();
      const found = words
        ? worst.filter((r) => r.id.toLowerCase() === words || r.formula.toLowerCase().startsWith(words))
        : task.classes ? rows.filter((r) => r.error) : worst;
      at("#found").textContent = words
        ? `${count(found.length)} test predictions${found.length > 25 ? ", the first 25 of them" : ""}`
        : task.classes ? `${count(found.length)} wrong predictions, the first 25 of them`
          : "the 25 largest errors";
      at("#crystals").replaceChildren(table(
        ["formula", "id", ...(folds ? ["fold"] : []), "target", "prediction", task.classes ? "" : "error"],
        found.slice(0, 25).map((r) => [r.formula, r.id, ...(folds ? [r.fold] : []), value(r.target),
          value(r.prediction), task.classes ? (r.error ? "wrong" : "right") : signed(r.error, 4)]), 2));
    };
    field.oninput = fill;
    fill();
  }

  // Learning curves ----------------------------------------------------------------------------

  /** Ticks of a logarithmic axis at 1, 2 and 5 of each decade, as plain numbers. */
  function decades() {
    const tickvals = [-4, -3, -2, -1, 0, 1, 2].flatMap((d) => [1, 2, 5].map((n) => Number(`${n}e${d}`)));
    return { tickvals, ticktext: tickvals.map(String) };
  }

  function curves() {
    const every = summary().experiments.filter((e) => e.curve);
    const task = at("#task"), what = at("#what"), logarithm = at("#log"), list = at("#choose");
    task.append(...tasksWith(every).map(([name, t]) => make("option", { value: name }, t.title)));
    const own = () => every.filter((e) => e.task === task.value);
    const ticked = () => [...list.querySelectorAll("input:checked")].map((box) => named(box.value));
    let latest = 0;
    const draw = async () => {
      const turn = ++latest, shown = ticked(), t = summary().tasks[task.value], key = what.value;
      const loaded = await Promise.all(shown.map((e) => load(`experiments/${e.name}`)));
      if (turn !== latest) return;
      const dashes = ["solid", "dash", "dot", "dashdot", "longdash"], seen = new Map(), traces = [];
      shown.forEach((e, i) => {
        const nth = seen.get(e.colour) ?? 0, runs = loaded[i].history;
        seen.set(e.colour, nth + 1);
        const line = { color: e.colour, dash: dashes[nth % dashes.length] };
        const longest = Math.max(...runs.map((r) => r[key].length));
        if (runs.length > 1) {
          const x = [], y = []; // all runs as one trace, with gaps between them
          for (const r of runs) { r[key].forEach((v, k) => { x.push(k + 1); y.push(v); }); x.push(null); y.push(null); }
          traces.push({ x, y, mode: "lines", line: { ...line, width: 1 }, opacity: 0.25, hoverinfo: "skip", showlegend: false });
        }
        const mean = Array.from({ length: longest }, (_, k) => {
          const values = runs.map((r) => r[key][k]).filter((v) => v !== undefined);
          return values.reduce((a, b) => a + b, 0) / values.length;
        });
        traces.push({
          x: mean.map((_, k) => k + 1), y: mean, mode: "lines", line: { ...line, width: 2.2 },
          name: label(e) + (runs.length > 1 ? ` (mean of ${runs.length})` : ""),
          hovertemplate: `${label(e)}<br>epoch %{x}: %{y:.4g}<extra></extra>`,
        });
      });
      const name = key === "val" ? `validation ${t.metric} / ${t.unit}` : "training loss";
      Plotly.react("chart", traces, layout({
        hovermode: "closest", showlegend: true,
        legend: { orientation: "h", y: -0.16, yanchor: "top", x: 0, font: { size: 12 } },
        xaxis: axis("epoch", { rangemode: "tozero" }),
        yaxis: axis(name, { type: logarithm.checked ? "log" : "linear",
          ...(logarithm.checked ? decades() : {}) }),
      }), config);
    };
    const fill = (first) => {
      const asked = named(chosen());
      const usual = new Set(); // one experiment of each method
      for (const e of own()) if (![...usual].some((u) => u.colour === e.colour)) usual.add(e);
      list.replaceChildren(...own().map((e) => {
        const on = first && asked && asked.task === task.value ? e === asked : usual.has(e);
        const box = make("input", { type: "checkbox", value: e.name });
        box.checked = on;
        box.addEventListener("change", draw);
        const swatch = make("span", { class: "swatch", style: `background:${e.colour}` });
        return make("label", {}, box, swatch, make("span", {}, label(e),
          make("small", {}, `${e.split}; test ${e.metric} ${e.shown}`)));
      }));
      logarithm.checked = !summary().tasks[task.value].classes;
      draw();
    };
    task.addEventListener("change", () => fill(false));
    [what, logarithm].forEach((one) => one.addEventListener("change", draw));
    const asked = named(chosen());
    if (asked && every.includes(asked)) task.value = asked.task;
    fill(true);
  }

  // Experiments --------------------------------------------------------------------------------

  /** Settings as [dotted key, value] pairs. */
  function flat(value, above = "") {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      return Object.entries(value).flatMap(([k, v]) => flat(v, above ? `${above}.${k}` : k));
    }
    return [[above, Array.isArray(value) ? value.join(", ") || "none" : String(value)]];
  }

  function experiments() {
    const every = summary().experiments, list = at("#choose"), field = at("#find"), target = at("#card");
    const texts = new Map(every.map((e) => [e.name, [e.name, e.title, summary().tasks[e.task].title, e.model,
      e.representation, e.dataset, e.split, e.search].join(" ").toLowerCase()]));
    const links = new Map(every.map((e) => [e.name, make("a", { href: `#${e.name}` }, e.name,
      make("small", {}, `${e.metric} ${e.shown} ${summary().tasks[e.task].unit}`))]));
    list.append(...links.values());
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const [name, link] of links) {
        link.hidden = !words.every((word) => texts.get(name).includes(word));
        n += !link.hidden;
      }
      at("#count").textContent = `${count(n)} of ${count(every.length)} experiments`;
    };
    field.addEventListener("input", filter);
    let latest;
    const show = async () => {
      const e = named(chosen()) ?? every[0];
      latest = e.name;
      for (const [name, link] of links) {
        if (name === e.name) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
      const own = await load(`experiments/${e.name}`);
      if (latest !== e.name) return;
      const machine = summary().numerics[own.numerics] ?? {}, task = summary().tasks[e.task];
      const section = (title, open, ...inner) =>
        make("details", open ? { open: "" } : {}, make("summary", {}, title), ...inner);
      const numbers = unpack(own.groups), groups = [];
      for (let i = 0; i < numbers.length; i += 4) {
        groups.push([`${numbers[i] || "unknown"}`, count(numbers[i + 1]), count(numbers[i + 2]),
          plain(numbers[i + 3] / 1e4, task.classes ? 1 : 4)]);
      }
      target.replaceChildren(
        make("h2", {}, e.name),
        make("p", {}, `${task.title}, ${e.title}. `,
          make("a", { href: `parity.html#${e.name}` }, task.classes ? "Confusion" : "Parity plot"),
          ...(e.curve ? [" · ", make("a", { href: `curves.html#${e.name}` }, "learning curve")] : []),
          " · ", make("a", { href: `../predictions/${e.name}.csv` }, "predictions (CSV)"),
          " · ", make("a", { href: `../cards/${e.name}.json` }, "card (JSON)")),
        section("Metrics", true, facts(flat(own.metrics))),
        section("Settings", true, facts(flat(own.card.settings ?? {}))),
        section("Networks", false, facts(flat(own.card.runs ?? {}))),
        section("Data, by SHA-256", false, facts(flat(summary().data[own.data] ?? {}))),
        section("Code and time", false, facts(flat(own.card.rest))),
        section("Numerics and machine", false, facts(flat(machine))),
        ...(groups.length ? [section("By space group", false,
          table(["space group", "training crystals", "test crystals", `${e.metric} / ${task.unit}`], groups, 0))] : []),
      );
    };
    window.addEventListener("hashchange", show);
    filter();
    show();
    at("[aria-current=true]", list)?.scrollIntoView({ block: "nearest" });
  }

  // Viewer -------------------------------------------------------------------------------------

  /** A ball of radius 1: an icosahedron, its triangles halved `times` times. */
  function ball(times) {
    const g = (1 + Math.sqrt(5)) / 2, points = [], cells = [];
    for (const a of [-1, 1]) for (const b of [-g, g]) points.push([0, a, b], [a, b, 0], [b, 0, a]);
    const near = (p, q) => Math.hypot(p[0] - q[0], p[1] - q[1], p[2] - q[2]) < 2.01;
    for (let i = 0; i < 12; i++) for (let j = 0; j < i; j++) for (let k = 0; k < j; k++) {
      if (!near(points[i], points[j]) || !near(points[j], points[k]) || !near(points[i], points[k])) continue;
      const [p, q, r] = [points[i], points[j], points[k]]; // seen from outside, corners run anticlockwise
      const out = p[0] * (q[1] * r[2] - q[2] * r[1]) + p[1] * (q[2] * r[0] - q[0] * r[2]) + p[2] * (q[0] * r[1] - q[1] * r[0]);
      cells.push(out > 0 ? [i, j, k] : [i, k, j]);
    }
    let triangles = cells;
    for (let n = 0; n < times; n++) {
      const middles = new Map(), half = (i, j) => {
        const key = i < j ? `${i} ${j}` : `${j} ${i}`;
        if (!middles.has(key)) {
          middles.set(key, points.length);
          points.push([0, 1, 2].map((d) => (points[i][d] + points[j][d]) / 2));
        }
        return middles.get(key);
      };
      triangles = triangles.flatMap(([a, b, c]) => {
        const [x, y, z] = [half(a, b), half(b, c), half(c, a)];
        return [[a, x, z], [b, y, x], [c, z, y], [x, y, z]];
      });
      points.forEach((p, i) => { const r = Math.hypot(...p); points[i] = p.map((v) => v / r); });
    }
    return { points, triangles };
  }

  /** Cartesian coordinates of fractional ones. */
  const place = (f, lattice) => [0, 1, 2].map((d) => f[0] * lattice[0][d] + f[1] * lattice[1][d] + f[2] * lattice[2][d]);

  /** Colours go with the square root: most faces have a small share, and they too must differ. */
  function colour(shown, share) {
    return shown.colours[Math.round(Math.sqrt(share / (shown.top || 1)) * (shown.colours.length - 1))];
  }

  /** Line segments [from, to] as the coordinates of one trace with gaps. */
  function segments(pairs, more) {
    const line = [[], [], []];
    for (const [p, q] of pairs) for (let d = 0; d < 3; d++) line[d].push(p[d], q[d], null);
    return { type: "scatter3d", mode: "lines", x: line[0], y: line[1], z: line[2], hoverinfo: "skip", ...more };
  }

  function traces(mesh, shown) {
    const fractions = mesh.vertices.map(([site, ...shift]) => mesh.frac[site].map((f, d) => f + shift[d]));
    const points = fractions.map((f) => place(f, mesh.lattice));
    const number = (x) => plain(Math.round(x * 1e4) / 1e4, 4).replace(/\.?0+$/, "").replace(/^−0$/, "0");
    const made = [], lighting = { ambient: 1, diffuse: 0, specular: 0, fresnel: 0 };

    for (let level = 0; level < shown.opacity.length; level++) {
      const own = mesh.faces.map((_, f) => f).filter((f) => mesh.level[f] === level);
      if (!own.length) continue;
      const i = [], j = [], k = [], facecolor = [], hovertext = [];
      for (const f of own) {
        const corners = mesh.faces[f];
        const share = mesh.share ? `<b>${mesh.share[f].toFixed(2)} %</b> of the channels` : "<b>face</b>";
        const several = mesh.triangles[f] > 1 ? `<br>${corners.length} corners, read as ${mesh.triangles[f]} triangles` : "";
        const atoms = corners.map((v) => `${mesh.symbols[mesh.vertices[v][0]]} (${fractions[v].map(number).join(", ")})`);
        const text = `${share}${several}<br>area ${mesh.area[f].toFixed(2)} Å²<br>${atoms.join("<br>")}`;
        for (let c = 2; c < corners.length; c++) {
          i.push(corners[0]); j.push(corners[c - 1]); k.push(corners[c]);
          facecolor.push(mesh.share ? colour(shown, mesh.share[f]) : shown.plain);
          hovertext.push(text);
        }
      }
      made.push({
        type: "mesh3d", x: points.map((p) => p[0]), y: points.map((p) => p[1]), z: points.map((p) => p[2]),
        i, j, k, facecolor, hovertext, hoverinfo: "text", lighting,
        opacity: mesh.share ? shown.opacity[level] : shown.without, meta: level,
      });
    }

    const edges = new Map(); // each with the highest level of its faces
    mesh.faces.forEach((corners, f) => corners.forEach((v, n) => {
      const w = corners[(n + 1) % corners.length], key = v < w ? `${v} ${w}` : `${w} ${v}`;
      edges.set(key, [Math.max(mesh.level[f], edges.get(key)?.[0] ?? 0), points[v], points[w]]);
    }));
    for (let level = 0; level < shown.opacity.length; level++) {
      const own = [...edges.values()].filter((e) => e[0] === level).map((e) => e.slice(1));
      const opacity = mesh.share && !level ? 0.15 : 0.5;
      if (own.length) made.push(segments(own, { meta: level, opacity, line: { color: "#3b4046", width: 1 } }));
    }

    const cube = [0, 1].flatMap((a) => [0, 1].flatMap((b) => [0, 1].map((c) => [a, b, c])));
    const box = cube.flatMap((p) => [0, 1, 2].filter((d) => !p[d]).map((d) => {
      const q = [...p];
      q[d] = 1;
      return [place(p, mesh.lattice), place(q, mesh.lattice)];
    }));
    made.push(segments(box, { line: { color: "#000", width: 3 } }));

    const shapes = [ball(1), ball(2)], x = [], y = [], z = [], i = [], j = [], k = [], vertexcolor = [], hovertext = [];
    points.forEach((p, v) => {
      const symbol = mesh.symbols[mesh.vertices[v][0]], shape = shapes[mesh.inside[v]], start = x.length;
      const radius = shown.elements[symbol].radius / (mesh.inside[v] ? 1 : shown.smaller);
      const text = `<b>${symbol}</b> at ${fractions[v].map(number).join(", ")}<br>site ${mesh.vertices[v][0] + 1}` +
        (mesh.inside[v] ? "" : "<br>outside of the cell");
      for (const q of shape.points) {
        x.push(p[0] + radius * q[0]); y.push(p[1] + radius * q[1]); z.push(p[2] + radius * q[2]);
        vertexcolor.push(shown.elements[symbol].colour);
        hovertext.push(text);
      }
      for (const [a, b, c] of shape.triangles) { i.push(start + a); j.push(start + c); k.push(start + b); }
    });
    made.push({
      type: "mesh3d", x, y, z, i, j, k, vertexcolor, hovertext, hoverinfo: "text", flatshading: false,
      lighting: { ambient: 0.55, diffuse: 0.7, specular: 0.25, roughness: 0.35, fresnel: 0.05 },
      lightposition: { x: -4e4, y: 6e4, z: -1e5 }, // of the camera: left, up, behind the reader,
    });
    return made;
  }

  /** Ranges of the three axes around all that is drawn, and their lengths: true to scale. */
  function axes(made) {
    const hidden = { visible: false, showspikes: false };
    const ranges = ["x", "y", "z"].map((d) => {
      let low = Infinity, high = -Infinity;
      for (const trace of made) {
        for (const v of trace[d]) if (v !== null) { low = Math.min(low, v); high = Math.max(high, v); }
      }
      return [low, high];
    });
    const spans = ranges.map(([low, high]) => high - low);
    const scale = Math.min(2.4 / Math.hypot(...spans), 1.9 / Math.max(...spans)); // fills the panel
    const [x, y, z] = spans.map((span) => scale * span);
    const [xaxis, yaxis, zaxis] = ranges.map((range) => ({ ...hidden, range }));
    return { aspectmode: "manual", aspectratio: { x, y, z }, xaxis, yaxis, zaxis };
  }

  /** Draw a crystal's meshes into the page's viewer. */
  function draw(shown) {
    const panel = at(".viewer"), scenes = at(".scenes", panel), shares = shown.meshes.some((m) => m.share);
    at(".elements", panel).replaceChildren(...Object.entries(shown.elements).map(([symbol, e]) =>
      make("span", {}, make("i", { style: `background:${e.colour}` }), symbol)));
    at(".scale", panel).replaceChildren(...(shares ? [
      make("span", {}, "0"), make("span", { class: "ramp", style: `background:linear-gradient(90deg, ${shown.colours.join(",")})` }),
      make("span", {}, `${shown.top.toFixed(1)} %`), make("span", { class: "middle" }, (shown.top / 4).toFixed(1)),
      make("span", { class: "name" }, "of the max pooling's channels"),
    ] : []));
    const [azimuth, elevation] = shown.view.map((v) => (v * Math.PI) / 180);
    const eye = [Math.cos(elevation) * Math.cos(azimuth), Math.cos(elevation) * Math.sin(azimuth), Math.sin(elevation)];
    const camera = () => ({
      eye: { x: 1.05 * eye[0], y: 1.05 * eye[1], z: 1.05 * eye[2] }, up: { x: 0, y: 0, z: 1 },
      center: { x: 0, y: 0, z: 0 }, projection: { type: "orthographic" },
    });
    for (const old of scenes.querySelectorAll(".plot")) Plotly.purge(old);
    const plots = shown.meshes.map((mesh) => {
      const plot = make("div", { class: "plot", role: "img", "aria-label": `${mesh.title} of ${shown.formula}` });
      const n = mesh.triangles.reduce((a, b) => a + b, 0);
      const idle = mesh.share ? `, ${count(mesh.level.filter((l) => l).length)} with a share` : "";
      scenes.append(make("figure", {}, make("figcaption", {}, make("b", {}, mesh.title), `: ${count(mesh.faces.length)} faces${idle}` +
        (n > mesh.faces.length ? ` (${count(n)} triangles)` : "")), plot));
      return [plot, traces(mesh, shown)];
    });
    while (scenes.children.length > plots.length) scenes.firstChild.remove();
    for (const [plot, made] of plots) {
      Plotly.newPlot(plot, made, {
        font: { family: FONT, size: 13, color: INK }, margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false,
        hoverlabel: { font: { family: FONT, size: 13, color: INK }, bgcolor: "#fff", bordercolor: "#57606a", align: "left" },
        scene: { ...axes(made), dragmode: "orbit", camera: camera() },
      }, { ...CONFIG, displayModeBar: false });
    }
    const least = at(".least", panel), linked = at(".linked", panel);
    least.max = shown.opacity.length - 1;
    least.closest("label").hidden = !shares;
    linked.closest("label").hidden = plots.length < 2;
    const filter = () => {
      const level = Number(least.value), share = shown.top * ((level - 1) / (shown.opacity.length - 1)) ** 2;
      at(".above", panel).textContent = level === 0 ? "all" : `share above ${share.toFixed(1)} %`;
      for (const [plot, made] of plots) {
        const some = made.flatMap((t, n) => (t.meta === undefined ? [] : [n]));
        Plotly.restyle(plot, { visible: some.map((n) => made[n].meta >= level) }, some);
      }
    };
    least.oninput = filter;
    if (!shares) least.value = 0;
    filter();
    plots.forEach(([plot]) => plot.on("plotly_relayouting", (change) => {
      const moved = change["scene.camera"];
      if (!moved || !linked.checked) return;
      for (const [other] of plots) if (other !== plot) Plotly.relayout(other, { "scene.camera": moved });
    }));
    at(".reset", panel).onclick = () => plots.forEach(([plot]) => Plotly.relayout(plot, { "scene.camera": camera() }));
    at(".caption", panel).textContent = "Drag to turn, scroll to zoom, point at a face or an atom to read what it is. " +
      "Atoms outside of the cell (black) are small. " + (shares
      ? "Colour and opacity of a face are its share of the max pooling: how many of the numbers that the network's head reads " +
        "come from it; faces without a share (nearly clear) could be left out, and the prediction would be the same. A face with more than three corners is " +
        "drawn once, with the shares of all the triangles that the network reads it as."
      : "There is no network here to tell which faces decide.");
    const table = at(".predictions", panel);
    table.hidden = !shown.predictions.length;
    table.tBodies[0].replaceChildren(...shown.predictions.map((p) => row([p.network, p.predicts, p.value, p.target ?? "–"], 4)));
  }

  function viewer() {
    const select = at("#crystal"), known = summary().crystals;
    select.append(...known.map((c) => make("option", { value: c.id }, `${c.formula} (${c.id}), ${c.group}`)));
    let latest;
    const show = async () => {
      latest = select.value;
      history.replaceState(null, "", `#${latest}`);
      const shown = await load(`viewer/${latest}`);
      if (shown.id === latest) draw(shown);
    };
    const come = () => {
      if (known.some((c) => c.id === chosen())) select.value = chosen();
      show();
    };
    select.addEventListener("change", show);
    window.addEventListener("hashchange", come);
    come();
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("table.sortable").forEach(sortable);
    const page = { parity, curves, experiments, viewer }[document.body.dataset.page];
    if (page) page();
  });

  return { data, draw, unpack };
})();
