"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const OUTCOMES = ["ok", "fail", "info"];
  const LEFT = 118, RIGHT = 10, AXIS = 18, LANE = 12, ROW = 18, SPAN_MIN = 0.05;
  const whole = [0, Math.max(data.length_ms, 1)];
  const broken = new Set(data.broken);
  let view = whole.slice(), kind = "send" in data.kinds ? "send" : "all", drag = null, hover = null;

  const seconds = (ms) => (ms >= 100000 ? (ms / 1000).toFixed(1) : (ms / 1000).toFixed(3)) + " s";
  const took = (us) => us < 1000 ? us + " µs" : us < 1e6 ? (us / 1000).toPrecision(3) + " ms" : (us / 1e6).toFixed(2) + " s";
  const short = (n) => n >= 1e6 ? (n / 1e6).toPrecision(3) + "M" : n >= 1e4 ? (n / 1e3).toFixed(0) + "k" : String(Math.round(n * 10) / 10);

  const laneBars = data.lanes.map(() => []);
  for (const bar of data.bars) laneBars[bar[0]].push(bar);
  const laneShades = data.lanes.map(() => []);
  for (const [lane, bin, count] of data.shades) laneShades[lane].push([bin, count]);
  const laneLongest = laneBars.map((bars) => bars.reduce((most, bar) => Math.max(most, bar[2]), 0));

  class Panel {
    constructor(id, height, draw, tell) {
      this.canvas = document.getElementById(id);
      this.height = height; this.draw = draw; this.tell = tell;
      const at = (event) => event.clientX - this.canvas.getBoundingClientRect().left;
      this.canvas.addEventListener("pointerdown", (event) => {
        if (event.button !== 0) return;
        this.canvas.setPointerCapture(event.pointerId);
        drag = { panel: this, from: at(event), to: at(event) };
      });
      this.canvas.addEventListener("pointermove", (event) => {
        const x = at(event), y = event.clientY - this.canvas.getBoundingClientRect().top;
        if (drag) drag.to = x;
        hover = { panel: this, x, y };
        tip(event, x < LEFT ? "" : this.tell(this.time(x), y, this));
        later();
      });
      this.canvas.addEventListener("pointerup", () => {
        if (!drag) return;
        const [a, b] = [this.time(Math.min(drag.from, drag.to)), this.time(Math.max(drag.from, drag.to))];
        const far = Math.abs(drag.to - drag.from) > 4;
        drag = null;
        if (far) show(a, b); else later();
      });
      this.canvas.addEventListener("pointerleave", () => { hover = null; tip(null, ""); later(); });
      this.canvas.addEventListener("dblclick", () => show(...whole));
    }
    get width() { return this.canvas.clientWidth - LEFT - RIGHT; }
    x(ms) { return LEFT + (ms - view[0]) / (view[1] - view[0]) * this.width; }
    time(x) { return Math.min(whole[1], Math.max(0, view[0] + (x - LEFT) / this.width * (view[1] - view[0]))); }
    paint() {
      const scale = devicePixelRatio || 1, canvas = this.canvas;
      canvas.style.height = this.height + "px";
      canvas.width = Math.round(canvas.clientWidth * scale);
      canvas.height = Math.round(this.height * scale);
      const g = canvas.getContext("2d");
      g.setTransform(scale, 0, 0, scale, 0, 0);
      g.font = "11px system-ui, 'DejaVu Sans', sans-serif";
      g.textBaseline = "middle";
      g.save();
      this.draw(g, this);
      g.restore();
      if (hover) this.line(g, hover.x, css("--soft"));
      if (drag) {
        g.globalAlpha = 0.18; g.fillStyle = css("--link");
        g.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), this.height);
        g.globalAlpha = 1;
      }
    }
    line(g, x, color) {
      if (x < LEFT || x > LEFT + this.width) return;
      g.strokeStyle = color; g.lineWidth = 1; g.beginPath();
      g.moveTo(Math.round(x) + 0.5, 0); g.lineTo(Math.round(x) + 0.5, this.height - AXIS); g.stroke();
    }
    clip(g) { g.beginPath(); g.rect(LEFT, 0, this.width, this.height - AXIS); g.clip(); }
    axis(g) {
      const rough = (view[1] - view[0]) / Math.max(2, this.width / 110), power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
      const digits = Math.max(0, Math.ceil(3 - Math.log10(step) - 1e-9));
      g.strokeStyle = css("--line"); g.fillStyle = css("--soft"); g.textAlign = "center"; g.lineWidth = 1;
      for (let i = Math.ceil(view[0] / step); i * step <= view[1]; i++) {
        const x = Math.round(this.x(i * step)) + 0.5;
        g.beginPath(); g.moveTo(x, 0); g.lineTo(x, this.height - AXIS + 3); g.stroke();
        g.textAlign = x > LEFT + this.width - 16 ? "right" : "center";
        g.fillText((i * step / 1000).toFixed(digits) + " s", x, this.height - AXIS / 2 + 1);
      }
      g.beginPath(); g.moveTo(LEFT, this.height - AXIS + 0.5); g.lineTo(LEFT + this.width, this.height - AXIS + 0.5); g.stroke();
    }
    faults(g) {
      for (const fault of data.faults) {
        if (fault.end < view[0] || fault.start > view[1]) continue;
        g.fillStyle = faultColor(fault.what);
        g.globalAlpha = fault.once ? 0.5 : 0.13;
        const from = this.x(fault.start), to = this.x(fault.end);
        g.fillRect(from, 0, Math.max(to - from, 1), this.height - AXIS);
      }
      g.globalAlpha = 1;
    }
    violations(g) {
      g.setLineDash([3, 3]);
      for (const ms of data.violations) if (ms >= view[0] && ms <= view[1]) this.line(g, this.x(ms), css("--bad"));
      g.setLineDash([]);
    }
    left(g, text, y) {
      g.fillStyle = css("--soft"); g.textAlign = "right";
      while (text.length > 4 && g.measureText(text).width > LEFT - 10) text = text.slice(0, -2) + "…";
      g.fillText(text, LEFT - 7, y);
    }
  }

  const faultColor = (what) => css("--f" + data.fault_kinds.indexOf(what) % 8);
  const faultsAt = (ms, slack) => data.faults.filter((f) => f.start - slack <= ms && ms <= f.end + slack);

  function drawFaults(g, panel) {
    panel.axis(g);
    data.fault_kinds.forEach((what, row) => panel.left(g, what, row * ROW + ROW / 2));
    panel.clip(g);
    for (const fault of data.faults) {
      const from = panel.x(fault.start), to = panel.x(fault.end), y = data.fault_kinds.indexOf(fault.what) * ROW + 3;
      g.fillStyle = faultColor(fault.what);
      g.globalAlpha = 0.85;
      if (fault.once) {
        g.beginPath(); g.moveTo(from - 4, y); g.lineTo(from + 4, y); g.lineTo(from, y + ROW - 6); g.fill();
      } else g.fillRect(from, y, Math.max(to - from, 2), ROW - 6);
    }
    g.globalAlpha = 1;
    panel.violations(g);
  }

  function tellFaults(ms, y) {
    const what = data.fault_kinds[Math.floor(y / ROW)], slack = 4 / 1000 * (view[1] - view[0]);
    return faultsAt(ms, slack).filter((f) => f.what === what).map(faultText).join("\n\n") || seconds(ms);
  }
  const faultText = (f) => f.what + ": " + f.detail + "\n" + seconds(f.start)
    + (f.once ? "" : " to " + seconds(f.end) + " (" + took(Math.round((f.end - f.start) * 1000)) + ")");

  const inView = (stretch) => (stretch[0] + 1) * data.width_ms >= view[0] && stretch[0] * data.width_ms <= view[1];

  function drawRate(g, panel) {
    const by = data.kinds[kind] || [[], [], []], totals = new Map();
    for (const stretches of by) for (const s of stretches.filter(inView)) totals.set(s[0], (totals.get(s[0]) || 0) + s[1]);
    const per = 1000 / data.width_ms, most = nice(Math.max(1, ...totals.values()) * per), h = panel.height - AXIS - 6;
    panel.axis(g);
    for (const part of [0, 0.5, 1]) panel.left(g, short(most * part) + "/s", Math.max(7, panel.height - AXIS - h * part - (part ? 0 : 5)));
    panel.clip(g); panel.faults(g);
    const base = new Map();
    by.forEach((stretches, outcome) => {
      g.fillStyle = css("--" + OUTCOMES[outcome]);
      for (const s of stretches.filter(inView)) {
        const from = base.get(s[0]) || 0, x = panel.x(s[0] * data.width_ms), w = panel.x((s[0] + 1) * data.width_ms) - x;
        base.set(s[0], from + s[1]);
        const y = (n) => panel.height - AXIS - n * per / most * h;
        g.fillRect(x, y(from + s[1]), Math.max(w - (w > 4 ? 1 : 0), 0.7), y(from) - y(from + s[1]));
      }
    });
    panel.violations(g);
  }
  function nice(n) {
    const power = 10 ** Math.floor(Math.log10(n));
    return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= n - 1e-9);
  }
  const stretchAt = (outcome, ms) => (data.kinds[kind] || [[], [], []])[outcome].find((s) => s[0] === Math.floor(ms / data.width_ms));
  function tellRate(ms) {
    const lines = OUTCOMES.map((name, o) => name + " " + ((stretchAt(o, ms) || [0, 0])[1]));
    return kind + ", " + seconds(ms) + "\n" + lines.join("   ") + " in " + data.width_ms + " ms" + openFaults(ms);
  }
  const openFaults = (ms) => faultsAt(ms, 0).map((f) => "\n" + f.what + ": " + f.detail).join("");

  function drawLatency(g, panel) {
    const by = data.kinds[kind] || [[], [], []];
    let low = Infinity, high = 0;
    for (const stretches of by) for (const s of stretches) { low = Math.min(low, Math.max(s[2], 10)); high = Math.max(high, s[4]); }
    if (!high) { low = 10; high = 1000; }
    const from = Math.floor(Math.log10(low)), to = Math.max(from + 1, Math.ceil(Math.log10(Math.max(high, 11))));
    const h = panel.height - AXIS - 8;
    const y = (us) => panel.height - AXIS - (Math.log10(Math.max(us, 10 ** from)) - from) / (to - from) * h;
    panel.axis(g);
    g.strokeStyle = css("--line");
    for (let p = from; p <= to; p++) {
      panel.left(g, took(10 ** p), Math.max(7, y(10 ** p) - (p === from ? 5 : 0)));
      g.beginPath(); g.moveTo(LEFT, y(10 ** p)); g.lineTo(LEFT + panel.width, y(10 ** p)); g.stroke();
    }
    panel.clip(g); panel.faults(g);
    const mid = (s) => panel.x((s[0] + 0.5) * data.width_ms);
    for (const [field, alpha, width] of [[4, 0.35, 1], [3, 0.65, 1.2], [2, 1, 1.8]]) {
      g.strokeStyle = css("--ok"); g.globalAlpha = alpha; g.lineWidth = width; g.beginPath();
      let before = -2;
      const shown = by[0].filter(inView);
      for (const s of shown) {
        // A stretch in which nothing ended is a gap, not a line across it.
        if (s[0] - before > 1) { g.moveTo(mid(s) - 0.6, y(s[field])); }
        g.lineTo(mid(s) + 0.6, y(s[field])); before = s[0];
      }
      g.stroke();
    }
    g.globalAlpha = 0.9;
    for (const outcome of [1, 2]) {
      g.fillStyle = css("--" + OUTCOMES[outcome]);
      for (const s of by[outcome].filter(inView)) { g.beginPath(); g.arc(mid(s), y(s[4]), 2.2, 0, 7); g.fill(); }
    }
    g.globalAlpha = 1;
    panel.violations(g);
  }
  function tellLatency(ms) {
    const lines = OUTCOMES.map((name, o) => {
      const s = stretchAt(o, ms);
      return s && "\n" + name + ": " + s[1] + "   p50 " + took(s[2]) + "   p99 " + took(s[3]) + "   max " + took(s[4]);
    });
    return kind + ", " + seconds(ms) + lines.filter(Boolean).join("") + openFaults(ms);
  }

  function drawLanes(g, panel) {
    panel.axis(g);
    data.lanes.forEach((name, lane) => {
      if (lane % 2) { g.fillStyle = css("--faint"); g.globalAlpha = 0.6; g.fillRect(LEFT, lane * LANE, panel.width, LANE); g.globalAlpha = 1; }
      panel.left(g, name, lane * LANE + LANE / 2 + 0.5);
    });
    panel.clip(g); panel.faults(g);
    const most = data.shades.reduce((m, s) => Math.max(m, s[2]), 1);
    g.fillStyle = css("--ok");
    laneShades.forEach((shades, lane) => {
      for (const [bin, count] of shades) {
        const x = panel.x(bin * data.width_ms), w = panel.x((bin + 1) * data.width_ms) - x;
        if (x + w < LEFT || x > LEFT + panel.width) continue;
        g.globalAlpha = 0.12 + 0.5 * Math.sqrt(count / most);
        g.fillRect(x, lane * LANE + 2, Math.max(w, 0.7), LANE - 4);
      }
    });
    g.globalAlpha = 0.9;
    // What went well first, so that nothing else is hidden by it.
    for (const outcome of [0, 1, 2]) {
      g.fillStyle = css("--" + OUTCOMES[outcome]);
      for (const bar of data.bars) if (bar[3] === outcome) drawBar(g, panel, bar, 0);
    }
    g.fillStyle = css("--bad"); g.globalAlpha = 1;
    for (const bar of data.bars) if (broken.has(bar[4])) drawBar(g, panel, bar, 1);
    panel.violations(g);
  }
  function drawBar(g, panel, bar, grow) {
    const x = panel.x(bar[1] / 1000), w = bar[2] / 1000 / (view[1] - view[0]) * panel.width;
    if (x + w < LEFT || x > LEFT + panel.width) return;
    g.fillRect(x - grow, bar[0] * LANE + 2 - grow, Math.max(w, 1) + 2 * grow, LANE - 4 + 2 * grow);
  }
  function tellLanes(ms, y, panel) {
    const lane = Math.floor(y / LANE), slack = 3 / panel.width * (view[1] - view[0]) * 1000, us = ms * 1000;
    let best = null, distance = slack;
    for (const bar of laneBars[lane] || []) {
      const off = us < bar[1] ? bar[1] - us : Math.max(0, us - bar[1] - bar[2]);
      if (off < distance || (best && off === 0 && bar[1] > best[1])) { best = bar; distance = off; }
    }
    let named = Math.min(lane, data.lanes.length - 1);
    while (named > 0 && !data.lanes[named]) named--;
    const name = (data.lanes[named] || "") + ", ";
    if (best) {
      const [, start, long, outcome, index, process, error, words] = best;
      return name + "process " + process + ", #" + index + ": " + OUTCOMES[outcome] + "\n" + seconds(start / 1000) + ", took " + took(long)
        + (words ? "\n" + words : "") + (error ? "\n" + data.errors[error - 1] : "") + (broken.has(index) ? "\nshows a violation" : "");
    }
    const shade = (laneShades[lane] || []).find((s) => s[0] === Math.floor(ms / data.width_ms));
    return name + seconds(ms) + (shade ? "\n" + shade[1] + " more in " + data.width_ms + " ms" : "") + openFaults(ms);
  }

  const panels = [
    new Panel("faults", Math.max(1, data.fault_kinds.length) * ROW + AXIS, drawFaults, tellFaults),
    new Panel("rate", 170, drawRate, tellRate),
    new Panel("latency", 230, drawLatency, tellLatency),
    new Panel("lanes", Math.max(1, data.lanes.length) * LANE + AXIS, drawLanes, tellLanes),
  ];

  let waiting = false;
  function later() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }
  function paint() {
    for (const panel of panels) panel.paint();
    document.getElementById("range").textContent = seconds(view[0]) + " to " + seconds(view[1]);
  }
  function tip(event, text) {
    const box = document.getElementById("tip");
    box.style.display = text ? "block" : "none";
    if (!text) return;
    box.textContent = text;
    box.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8)) + "px";
    box.style.top = (event.clientY + 18 + box.offsetHeight > innerHeight ? event.clientY - box.offsetHeight - 10 : event.clientY + 18) + "px";
  }
  function show(a, b) {
    const span = Math.min(Math.max(b - a, SPAN_MIN), whole[1]);
    const from = Math.min(Math.max(0, a), whole[1] - span);
    view = [from, from + span];
    const all = span >= whole[1];
    history.replaceState(null, "", all ? location.pathname + location.search : "#t=" + view.map((ms) => (ms / 1000).toFixed(4)).join("-"));
    later();
  }
  function zoom(factor, shift) {
    const span = (view[1] - view[0]) * factor, middle = (view[0] + view[1]) / 2 + shift * (view[1] - view[0]);
    show(middle - span / 2, middle + span / 2);
  }
  function choose(next) {
    kind = next;
    for (const button of document.querySelectorAll("[data-kind]")) button.setAttribute("aria-pressed", button.dataset.kind === kind);
    later();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { kind: chosen, zoom: factor, shift, from, to, copy } = button.dataset;
    if (chosen) choose(chosen);
    if (factor) zoom(Number(factor), Number(shift || 0));
    if (button.id === "whole") show(...whole);
    if (from) { show(Number(from), Number(to)); document.getElementById("time").scrollIntoView(); }
    if (copy && navigator.clipboard) navigator.clipboard.writeText(copy).then(() => { button.textContent = "copied"; });
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { "+": [0.5, 0], "-": [2, 0], ArrowLeft: [1, -0.25], ArrowRight: [1, 0.25] }[event.key];
    if (step) { zoom(...step); event.preventDefault(); }
    if (event.key === "0") show(...whole);
  });
  const asked = /^#t=([\d.]+)-([\d.]+)$/.exec(location.hash);
  if (asked) show(Number(asked[1]) * 1000, Number(asked[2]) * 1000);
  addEventListener("resize", later);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
  choose(kind);
})();
