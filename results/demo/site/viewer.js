"use strict";

// The viewer of meshes: `crystalmesh.draw` fills the panel of viewer.html. Needs site.js before it.

(() => {
  const { FONT, INK, CONFIG, load, make, at, count, plain, row, summary, chosen } = crystalmesh;

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
    table.tBodies[0].replaceChildren(...shown.predictions.map((p) => row([p.network, p.predicts, p.value, p.true ?? "–"], 4)));
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

  Object.assign(crystalmesh, { draw, viewer });
})();
