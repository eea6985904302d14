// What the tests ask of a page. It is evaluated by the debugger, so it runs under any policy, and where scripts are off.
(op, scope, what, value) => {
  if (!document.body) throw Error("there is no document yet"); // of a page that leads on by itself: it is asked again
  const flat = s => (s || "").replace(/\s+/g, " ").trim();
  const root = scope ? document.querySelector(scope) : document;
  if (!root) return {error: "nothing is at " + scope};
  const shown = e => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
  const selector = /^[#.[*]|[[\]>]|^[a-z][a-z0-9-]*[.#:][^ ]/.test(what);
  const labelled = e => (e.getAttribute("aria-labelledby") || "").split(/\s+/).map(id => id && document.getElementById(id)).filter(Boolean).map(l => flat(l.innerText)).join(" ");
  const name = e => labelled(e) || flat(e.getAttribute("aria-label")) || (e.tagName === "INPUT" ? e.value : flat(e.innerText));
  const labels = e => [labelled(e), flat(e.getAttribute("aria-label")), ...[...(e.labels || [])].map(l => flat(l.innerText))].filter(Boolean);
  const about = e => flat(e.outerHTML).slice(0, 160);

  // one is the only element that is meant; a whole name wins over a part of one.
  const one = (tags, names) => {
    let all = [...root.querySelectorAll(selector ? what : tags)].filter(shown);
    if (!selector) {
      const whole = all.filter(e => names(e).some(n => n === what));
      all = whole.length ? whole : all.filter(e => names(e).some(n => n.includes(what)));
    }
    if (all.length === 1) return all[0];
    throw Error(all.length ? all.length + " things are meant by " + JSON.stringify(what) + ": " + all.slice(0, 5).map(about).join(" | ") : "there is no " + JSON.stringify(what));
  };
  const pressable = () => one("a[href], button, summary, label, input[type=submit], input[type=button], input[type=checkbox], input[type=radio], [role=button], [role=tab], [role=menuitem]",
    e => e.tagName === "LABEL" && !e.control ? [] : [name(e)]);
  const field = () => one("input, select, textarea", labels);

  const ops = {
    point() {
      const e = pressable();
      if (e.matches(":disabled")) throw Error("disabled: " + about(e));
      e.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
      const box = e.getClientRects()[0], x = box.x + box.width / 2, y = box.y + box.height / 2;
      const hit = document.elementFromPoint(x, y);
      if (!hit || !(e.contains(hit) || hit.contains(e))) throw Error("covered by " + (hit ? about(hit) : "nothing") + ": " + about(e));
      const link = e.closest("a[href]"), form = e.form;
      const sends = form && (e.type === "submit" || e.type === "image") && (form.noValidate || e.formNoValidate || form.checkValidity());
      return {x, y, goes: Boolean(link && !link.target && !link.hasAttribute("download") && link.href.split("#")[0] !== location.href.split("#")[0] || sends)};
    },
    focus() {
      const e = field();
      if (e.matches(":disabled") || e.readOnly) throw Error("can't be filled in: " + about(e));
      e.focus();
      if (e.select && !["date", "time", "month", "datetime-local", "color", "range"].includes(e.type)) { e.select(); return {typed: true}; }
      e.value = value;
      e.dispatchEvent(new Event("input", {bubbles: true}));
      e.dispatchEvent(new Event("change", {bubbles: true}));
      return {typed: false, text: e.value};
    },
    value() { return {text: field().value}; },
    select() {
      const e = field();
      const o = [...e.options].find(o => flat(o.label) === value || o.value === value);
      if (!o) throw Error(JSON.stringify(value) + " is none of " + [...e.options].map(o => flat(o.label)).join(", "));
      e.focus();
      o.selected = true;
      e.dispatchEvent(new Event("input", {bubbles: true}));
      e.dispatchEvent(new Event("change", {bubbles: true}));
      return {};
    },
    submit() {
      const e = root.querySelector(what), form = e && (e.tagName === "FORM" ? e : e.form);
      if (!form) throw Error("no form is at " + what);
      const goes = form.noValidate || form.checkValidity();
      form.requestSubmit();
      return {goes};
    },
    text() {
      const e = root.querySelector(what);
      if (!e) throw Error("nothing is at " + what);
      return {text: flat(e.innerText)};
    },
    visible() { return {yes: [...root.querySelectorAll(what)].some(shown)}; },
    count() { return {n: root.querySelectorAll(what).length}; },
    has() { return {yes: flat((root === document ? document.body : root)?.innerText).includes(flat(what))}; },
    html() { return {text: document.documentElement.outerHTML}; },
    focused() {
      const e = document.activeElement;
      return {text: !e || e === document.body ? "" : e.tagName.toLowerCase() + " " + (labels(e)[0] || name(e))};
    },
    wide() {
      const d = document.documentElement;
      if (d.scrollWidth <= d.clientWidth) return {text: ""};
      const out = [...document.body.querySelectorAll("*")].filter(e => shown(e) && e.getBoundingClientRect().right > d.clientWidth + 1);
      return {text: "it is " + d.scrollWidth + " wide in a window of " + d.clientWidth + ", beginning with " + out.slice(0, 3).map(about).join(" | ")};
    },
  };
  try { return ops[op](); } catch (e) { return {error: e.message}; }
}
