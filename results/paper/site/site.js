"use strict";

// The pages of the result site. Data come in as scripts that call `crystalmesh.data`, so that all
// works from a folder on disk. The viewer of meshes stands in viewer.js.

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

  // Runs and their targets ---------------------------------------------------------------------

  const summary = () => stored.get("summary");
  const chosen = () => decodeURIComponent(location.hash.slice(1));
  const named = (key) => summary().entries.find((e) => e.key === key);

  const label = (e) => `${e.title}, ${count(e.n_train)} crystals`;

  /** Fill a select; group names lead to lists of [value, text]. */
  function options(select, groups) {
    select.replaceChildren(...Object.entries(groups).map(([group, items]) => {
      const inner = items.map(([value, text]) => make("option", { value }, text));
      return group ? make("optgroup", { label: group }, ...inner) : inner[0];
    }));
  }

  const targetsOf = (entries) =>
    Object.entries(summary().targets).filter(([name]) => entries.some((e) => e.target === name));

  /** A select of targets and one of the runs that have the target; the address tells which. */
  function pick(act) {
    const target = at("#target"), run = at("#run"), every = summary().entries;
    target.append(...targetsOf(every).map(([name, t]) => make("option", { value: name }, t.title)));
    const fill = () => {
      const splits = {};
      for (const e of every.filter((one) => one.target === target.value)) {
        (splits[e.split] ??= []).push([e.key, `${label(e)}: ${e.shown}`]);
      }
      options(run, splits);
    };
    const go = () => {
      history.replaceState(null, "", `#${run.value}`);
      act(named(run.value));
    };
    const come = () => {
      const one = named(chosen()) ?? every[0];
      target.value = one.target;
      fill();
      run.value = one.key;
      go();
    };
    target.addEventListener("change", () => { fill(); go(); });
    run.addEventListener("change", go);
    window.addEventListener("hashchange", come);
    come();
  }

  /** Test crystals of a run and target: id, formula, fold, true value, prediction. */
  async function tested(e) {
    const [names, set, own] = await Promise.all(
      [load(`crystals-${e.dataset}`), load(`sets/${e.set}`), load(`runs/${e.key}`)]);
    const target = summary().targets[e.target], formulas = names.formulas.split(" ");
    const ids = names.ids?.split(" ") ?? sums(unpack(names.numbers)).map((n) => names.prefix + n);
    const truth = unpack(set.true), errors = unpack(own.errors);
    const folds = set.folds.flatMap(([fold, n]) => Array(n).fill(fold));
    return sums(unpack(set.crystals)).map((place, i) => ({
      id: ids[place], formula: formulas[place], fold: folds[i], true: truth[i] * target.step,
      prediction: (truth[i] + errors[i]) * target.step, error: errors[i] * target.step,
    }));
  }

  // Parity -------------------------------------------------------------------------------------

  function parity() {
    let latest;
    pick(async (e) => {
      latest = e.key;
      const rows = await tested(e), target = summary().targets[e.target];
      if (latest !== e.key) return;
      at("#heading").textContent = `${target.title}: ${e.title}`;
      at("#facts").replaceChildren(facts([
        [`test ${e.metric}`, `${e.shown} ${target.unit}`],
        ...(e.spread ? [[`each ${e.over}`, e.spread]] : []),
        ...(target.classes ? [] : quantiles(rows, target)),
        [target.classes ? "90 % sets hold" : "90 % intervals hold", `${(100 * e.coverage).toFixed(1)} % of the test crystals`],
        ["crystals", `${count(e.n_train)} train, ${count(e.n_val)} validation, ${count(e.n_test)} test`],
        ["split", e.split],
        ["run", make("a", { href: `runs.html#${e.key}` }, e.run)],
      ]));
      (target.classes ? confusion : scatter)(rows, e, target);
      crystals(rows, target);
    });
  }

  function quantiles(rows, target) {
    const sorted = rows.map((r) => Math.abs(r.error)).sort((a, b) => a - b);
    const below = (share) => `${plain(sorted[Math.ceil(share * sorted.length) - 1], 4)} ${target.unit}`;
    return [["half of the errors up to", below(0.5)], ["95 % of the errors up to", below(0.95)]];
  }

  const many = (rows) => rows.some((r) => r.fold !== rows[0].fold);

  function hover(r, target, folds) {
    const value = (x) => (target.classes ? `${x}` : plain(x, 4));
    const error = target.classes ? (r.error ? "wrong" : "right") : `error ${signed(r.error, 4)} ${target.unit}`;
    return `<b>${r.formula}</b> (${r.id}${folds ? `, fold ${r.fold}` : ""})<br>true ${value(r.true)}` +
      `<br>prediction ${value(r.prediction)}<br>${error}`;
  }

  function scatter(rows, e, target) {
    const folds = many(rows), range = limits(rows.flatMap((r) => [r.true, r.prediction]));
    const beyond = rows.filter((r) => [r.true, r.prediction].some((x) => x < range[0] || x > range[1]));
    const points = {
      type: rows.length > 3000 ? "scattergl" : "scatter", mode: "markers",
      x: rows.map((r) => r.true), y: rows.map((r) => r.prediction),
      text: rows.map((r) => hover(r, target, folds)), hoverinfo: "text",
      marker: { color: e.colour, size: rows.length > 3000 ? 4 : 6, opacity: rows.length > 3000 ? 0.3 : 0.5 },
    };
    const line = {
      type: points.type, mode: "lines", x: range, y: range, hoverinfo: "skip", line: { color: INK, width: 1 },
    };
    Plotly.react("chart", [line, points], layout({
      showlegend: false, hovermode: "closest", dragmode: "zoom",
      xaxis: axis(`true / ${target.unit}`, { range, constrain: "domain" }),
      yaxis: axis(`prediction / ${target.unit}`, { range, scaleanchor: "x", constrain: "domain" }),
    }), config);
    at("#note").textContent = `${count(rows.length)} test predictions; the line is equality.` +
      (beyond.length ? ` ${count(beyond.length)} of them are outside of the axes: zoom out to see them.` : "") +
      (new Set(rows.map((r) => r.id)).size < rows.length ? " A crystal that several folds test is there once for each." : "");
    at("#classes").replaceChildren();
  }

  function confusion(rows, e, target) {
    const tally = new Map();
    for (const r of rows) tally.set(r.true, (tally.get(r.true) ?? 0) + 1);
    const order = [...tally].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([name]) => name);
    const top = order.slice(0, 16).sort((a, b) => a - b), names = [...top.map(String), "other"];
    const place = (x) => (top.includes(x) ? top.indexOf(x) : top.length);
    const counts = names.map(() => names.map(() => 0));
    for (const r of rows) counts[place(r.true)][place(r.prediction)] += 1;
    const totals = counts.map((line) => line.reduce((a, b) => a + b, 0) || 1);
    const share = counts.map((line, i) => line.map((n) => (100 * n) / totals[i]));
    Plotly.react("chart", [{
      type: "heatmap", x: names, y: names, z: share, zmin: 0, zmax: 100, xgap: 1, ygap: 1,
      colorscale: [[0, "#ffffff"], [0.25, "#cfe0ee"], [0.5, "#8fb8d9"], [0.75, "#3f82b5"], [1, "#0b4f86"]],
      text: counts.map((line) => line.map((n) => n || "")), texttemplate: "%{text}", textfont: { size: 10 },
      hovertemplate: `true %{y}, predicted %{x}<br>%{text} crystals, %{z:.0f} % of the row<extra></extra>`,
      colorbar: { title: { text: "% of the row", side: "right" }, thickness: 12, len: 0.7, outlinewidth: 0 },
    }], layout({
      xaxis: axis(`predicted ${target.title}`, { type: "category", tickangle: -60, showgrid: false }),
      yaxis: axis(`true ${target.title}`, { type: "category", autorange: "reversed", showgrid: false }),
    }), config);
    at("#note").textContent = `Counts of ${count(rows.length)} test crystals among the ${top.length} most frequent ` +
      "classes; “other” is every other class, so its diagonal holds right and wrong ones.";
    const lines = order.map((name) => {
      const own = rows.filter((r) => r.true === name), wrong = new Map();
      for (const r of own) if (r.error) wrong.set(r.prediction, (wrong.get(r.prediction) ?? 0) + 1);
      const worst = [...wrong].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0];
      const right = own.filter((r) => !r.error).length;
      return [`${name}`, count(own.length), count(right), ((100 * right) / own.length).toFixed(1),
        worst ? `${worst[0]} (${worst[1]})` : "–"];
    });
    at("#classes").replaceChildren(
      make("h2", {}, "Accuracy by class"),
      table([target.title, "test crystals", "right", "accuracy / %", "most often taken for"], lines, 0));
  }

  /** The test crystals as a table: those that are searched for, or the worst. */
  function crystals(rows, target) {
    const field = at("#find"), folds = many(rows);
    const worst = [...rows].sort((a, b) => Math.abs(b.error) - Math.abs(a.error));
    const value = (x) => (target.classes ? `${x}` : plain(x, 4));
    const fill = () => {
      const words = field.value.trim().toLowerCase();
      const found = words
        ? worst.filter((r) => r.id.toLowerCase() === words || r.formula.toLowerCase().startsWith(words))
        : target.classes ? rows.filter((r) => r.error) : worst;
      at("#found").textContent = words
        ? `${count(found.length)} test predictions${found.length > 25 ? ", the first 25 of them" : ""}`
        : target.classes ? `${count(found.length)} wrong predictions, the first 25 of them`
          : "the 25 largest errors";
      at("#crystals").replaceChildren(table(
        ["formula", "id", ...(folds ? ["fold"] : []), "true", "prediction", target.classes ? "" : "error"],
        found.slice(0, 25).map((r) => [r.formula, r.id, ...(folds ? [r.fold] : []), value(r.true),
          value(r.prediction), target.classes ? (r.error ? "wrong" : "right") : signed(r.error, 4)]), 2));
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
    const every = summary().entries.filter((e) => e.curve);
    const target = at("#target"), what = at("#what"), logarithm = at("#log"), list = at("#choose");
    target.append(...targetsOf(every).map(([name, t]) => make("option", { value: name }, t.title)));
    const own = () => every.filter((e) => e.target === target.value);
    const ticked = () => [...list.querySelectorAll("input:checked")].map((box) => named(box.value));
    let latest = 0;
    const draw = async () => {
      const turn = ++latest, shown = ticked(), t = summary().targets[target.value], key = what.value;
      const loaded = await Promise.all(shown.map((e) => load(`runs/${e.key}`)));
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
      const usual = new Set(); // one run of each method
      for (const e of own()) if (![...usual].some((u) => u.colour === e.colour)) usual.add(e);
      list.replaceChildren(...own().map((e) => {
        const on = first && asked && asked.target === target.value ? e === asked : usual.has(e);
        const box = make("input", { type: "checkbox", value: e.key });
        box.checked = on;
        box.addEventListener("change", draw);
        const swatch = make("span", { class: "swatch", style: `background:${e.colour}` });
        return make("label", {}, box, swatch, make("span", {}, label(e),
          make("small", {}, `${e.split}; test ${e.metric} ${e.shown}`)));
      }));
      logarithm.checked = !summary().targets[target.value].classes;
      draw();
    };
    target.addEventListener("change", () => fill(false));
    [what, logarithm].forEach((one) => one.addEventListener("change", draw));
    const asked = named(chosen());
    if (asked && every.includes(asked)) target.value = asked.target;
    fill(true);
  }

  // Runs ---------------------------------------------------------------------------------------

  /** Settings as [dotted key, value] pairs. */
  function flat(value, above = "") {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      return Object.entries(value).flatMap(([k, v]) => flat(v, above ? `${above}.${k}` : k));
    }
    return [[above, Array.isArray(value) ? value.join(", ") || "none" : String(value)]];
  }

  function runs() {
    const every = summary().entries, list = at("#choose"), field = at("#find"), card = at("#card");
    const texts = new Map(every.map((e) => [e.key, [e.study, e.run, e.title, summary().targets[e.target].title, e.model,
      e.representation, e.dataset, e.split, e.search].join(" ").toLowerCase()]));
    const links = new Map(every.map((e) => [e.key, make("a", { href: `#${e.key}` }, e.run,
      make("small", {}, `${summary().targets[e.target].title}: ${e.metric} ${e.shown} ${summary().targets[e.target].unit}`))]));
    list.append(...links.values());
    const filter = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      for (const [key, link] of links) {
        link.hidden = !words.every((word) => texts.get(key).includes(word));
        n += !link.hidden;
      }
      at("#count").textContent = `${count(n)} of ${count(every.length)}`;
    };
    field.addEventListener("input", filter);
    let latest;
    const show = async () => {
      const e = named(chosen()) ?? every[0];
      latest = e.key;
      for (const [key, link] of links) {
        if (key === e.key) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
      const own = await load(`runs/${e.key}`);
      if (latest !== e.key) return;
      const machine = summary().numerics[own.numerics] ?? {}, target = summary().targets[e.target];
      const section = (title, open, ...inner) =>
        make("details", open ? { open: "" } : {}, make("summary", {}, title), ...inner);
      const numbers = unpack(own.groups), groups = [];
      for (let i = 0; i < numbers.length; i += 4) {
        groups.push([`${numbers[i] || "unknown"}`, count(numbers[i + 1]), count(numbers[i + 2]),
          plain(numbers[i + 3] / 1e4, target.classes ? 1 : 4)]);
      }
      card.replaceChildren(
        make("h2", {}, e.run),
        make("p", {}, `${target.title}, ${e.title}. `,
          make("a", { href: `parity.html#${e.key}` }, target.classes ? "Confusion" : "Parity plot"),
          ...(e.curve ? [" · ", make("a", { href: `curves.html#${e.key}` }, "learning curve")] : []),
          " · ", make("a", { href: `../../${e.study}/predictions/${e.run}/${e.target}.csv` }, "predictions (CSV)"),
          " · ", make("a", { href: `../../${e.study}/cards/${e.run}.json` }, "card (JSON)")),
        section("Metrics", true, facts(flat(own.metrics))),
        section("Settings", true, facts(flat(own.card.settings ?? {}))),
        section("Networks", false, facts(flat(own.card.runs ?? {}))),
        section("Data, by SHA-256", false, facts(flat(summary().data[own.data] ?? {}))),
        section("Code and time", false, facts(flat(own.card.rest))),
        section("Numerics and machine", false, facts(flat(machine))),
        ...(groups.length ? [section("By space group", false,
          table(["space group", "training crystals", "test crystals", `${e.metric} / ${target.unit}`], groups, 0))] : []),
      );
    };
    window.addEventListener("hashchange", show);
    filter();
    show();
    at("[aria-current=true]", list)?.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("table.sortable").forEach(sortable);
    const page = { parity, curves, runs, viewer: crystalmesh.viewer }[document.body.dataset.page];
    if (page) page();
  });

  return { FONT, INK, CONFIG, data, load, unpack, make, at, count, plain, row, summary, chosen };
})();
