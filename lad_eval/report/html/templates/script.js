(function () {
  "use strict";
  // Everything that the data holds is put into the page as text, never as markup.
  var data = JSON.parse(document.getElementById("data").textContent);
  var PAGE = 25;
  document.documentElement.classList.add("scripted");

  function make(tag, cls, text) {
    var node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined && text !== null) node.textContent = text;
    for (var i = 3; i < arguments.length; i++) if (arguments[i]) node.appendChild(arguments[i]);
    return node;
  }
  function letter(image) {
    var name = "";
    for (var k = image + 1; k > 0; k = Math.floor((k - 1) / 26)) name = String.fromCharCode(65 + (k - 1) % 26) + name;
    return name;
  }
  function picture(name) {
    var inline = document.querySelector('img[data-picture="' + name + '"]');
    return data.pictures[name] || (inline && inline.src);
  }

  /* Tabs: one run at a time. */
  var links = Array.prototype.slice.call(document.querySelectorAll("[data-tab]"));
  function show(id) {
    links.forEach(function (link) {
      var chosen = link.dataset.tab === id;
      link.setAttribute("aria-selected", String(chosen));
      link.tabIndex = chosen ? 0 : -1;
      document.getElementById(link.dataset.tab).classList.toggle("away", !chosen);
    });
  }
  function fromAddress() {
    var target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
    var run = target && target.closest(".run");
    return run ? run.id : "";
  }
  if (links.length) {
    links[0].parentNode.setAttribute("role", "tablist");
    links.forEach(function (link, place) {
      link.setAttribute("role", "tab");
      link.setAttribute("aria-controls", link.dataset.tab);
      document.getElementById(link.dataset.tab).setAttribute("role", "tabpanel");
      // Following the address would take the focus off the tab.
      link.addEventListener("click", function (event) {
        event.preventDefault();
        history.replaceState(null, "", "#" + link.dataset.tab);
        show(link.dataset.tab);
      });
      link.addEventListener("keydown", function (event) {
        var step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        var next = links[(place + step + links.length) % links.length];
        next.focus();
        next.click();
      });
    });
    show(fromAddress() || links[0].dataset.tab);
  }
  window.addEventListener("hashchange", function () {
    var id = fromAddress();
    if (id && links.length) show(id);
  });

  /* Which methods the charts and tables show. */
  Array.prototype.forEach.call(document.querySelectorAll(".run"), function (run) {
    var boxes = Array.prototype.slice.call(run.querySelectorAll(".chooser input"));
    function apply() {
      var shown = {};
      boxes.forEach(function (box) { shown[box.value] = box.checked; });
      Array.prototype.forEach.call(run.querySelectorAll("[data-method]"), function (node) {
        node.classList.toggle("off", shown[node.dataset.method] === false);
      });
    }
    boxes.forEach(function (box) { box.checked = true; box.addEventListener("change", apply); });
  });

  /* The list of samples. */
  var STATES = [
    ["all", "all samples"],
    ["flips", "flips: another image under some order"],
    ["right", "always right"],
    ["wrong", "never right"],
    ["same", "always the same wrong image"],
    ["none", "some answer unparsable"]
  ];
  function stateOf(images, gold) {
    var first = images[0], same = images.every(function (i) { return i === first; });
    var right = images.filter(function (i) { return i === gold; }).length;
    return {
      all: true, flips: !same, right: right === images.length, wrong: right === 0,
      same: same && right === 0 && first >= 0, none: images.indexOf(-1) >= 0
    };
  }
  function choice(image, gold, about) {
    var right = image === gold, node = make("span", "choice " + (right ? "yes" : "no"), image < 0 ? "–" : letter(image));
    node.title = about + (right ? ", right" : image < 0 ? ", no answer" : ", wrong");
    node.appendChild(make("span", "sr", right ? " right" : " wrong"));
    return node;
  }
  function select(label, options, cls) {
    var list = make("select");
    options.forEach(function (option) {
      var node = make("option", "", option[1]);
      node.value = option[0];
      list.appendChild(node);
    });
    return { list: list, node: make("label", cls, label, list) };
  }

  function explorer(place, run) {
    var T = run.shared ? run.orders.length : run.orders[0].length;
    function order(s, t) { return run.shared ? run.orders[t] : run.orders[s][t]; }
    var apart = {};
    run.apart.forEach(function (s) { apart[s] = true; });
    var method = select("Method", run.methods.map(function (m, i) { return [i, m.name]; }));
    var states = STATES.concat(run.apart.length ? [["apart", "attention right, logits wrong"]] : []);
    var state = select("Show", states);
    var search = make("input"), shown = PAGE;
    search.type = "search";
    search.placeholder = "caption or id";
    var other = select("and where", [["", "– any –"]].concat(run.methods.reduce(function (all, m, i) {
      return all.concat([[i + " right", m.name + " is always right"], [i + " not", m.name + " is not always right"]]);
    }, [])));
    var count = make("p", "count"), list = make("ul", "samples"), more = make("button", "more", "Show more");
    count.setAttribute("role", "status");
    more.type = "button";
    [make("div", "filters", null, method.node, state.node, other.node, make("label", "grow", "Search", search)), count, list, more]
      .forEach(function (node) { place.appendChild(node); });

    function details(s, m) {
      var box = make("div", "inside"), names = run.pictures[s], first = order(s, 0);
      if (names) {
        var row = make("ul", "shown");
        names.forEach(function (name, image) {
          var img = make("img"), right = image === run.gold[s];
          img.src = picture(name);
          img.alt = "Image " + letter(image) + (right ? ", the right one" : "");
          row.appendChild(make("li", right ? "right" : "", null,
            make("p", "place", null, make("b", "", letter(image)), right ? make("span", "badge", "right") : null), img));
        });
        box.appendChild(row);
      } else {
        box.appendChild(make("p", "quiet small", "The images of this sample are not in the page. Right: image " + letter(run.gold[s]) + "."));
      }
      box.appendChild(make("h5", "", "The image chosen under each order"));
      box.appendChild(table(["Order shown"].concat(run.methods.map(function (x) { return x.name; })), T, function (t) {
        return [order(s, t).map(letter).join(" ")].concat(run.methods.map(function (x, i) {
          return choice(run.image[i][s][t], run.gold[s], x.name);
        }));
      }, "choices"));
      var percents = run.percent[m];
      if (percents) {
        box.appendChild(make("h5", "", "Probabilities of " + run.methods[m].name + ", in percent, by position (image)"));
        box.appendChild(table(["Order shown"].concat(first.map(function (_, j) { return String(j + 1); })), T, function (t) {
          return [order(s, t).map(letter).join(" ")].concat(order(s, t).map(function (image, j) {
            return (percents[s][t] ? percents[s][t][j] : "–") + " (" + letter(image) + ")";
          }));
        }, "choices"));
      } else {
        box.appendChild(make("p", "quiet small", "The page has no probabilities of " + run.methods[m].name + "."));
      }
      return box;
    }
    function table(headers, rows, cells, cls) {
      var head = make("tr"), body = make("tbody");
      headers.forEach(function (text) { var th = make("th", "", text); th.scope = "col"; head.appendChild(th); });
      for (var t = 0; t < rows; t++) {
        var tr = make("tr");
        cells(t).forEach(function (cell, i) {
          var node = make(i ? "td" : "th");
          if (!i) node.scope = "row";
          if (cell instanceof Node) node.appendChild(cell); else node.textContent = cell;
          tr.appendChild(node);
        });
        body.appendChild(tr);
      }
      var scroll = make("div", "scroll", null, make("table", cls, null, make("thead", "", null, head), body));
      scroll.tabIndex = 0;
      return scroll;
    }
    function item(s, m) {
      var what = make("span", "what", null, make("span", "id", run.sample[s])), strip = make("span", "strip");
      if (run.caption[s] !== null) {
        var caption = make("bdi", "caption", run.caption[s]);
        caption.dir = "auto";
        what.appendChild(caption);
      }
      run.image[m][s].forEach(function (image, t) {
        strip.appendChild(choice(image, run.gold[s], "order " + (t + 1) + ": " + order(s, t).map(letter).join(" ")));
      });
      var fold = make("details", "", null, make("summary", "", null, what, strip));
      fold.addEventListener("toggle", function () {
        if (fold.open && !fold.querySelector(".inside")) fold.appendChild(details(s, m));
      });
      return make("li", "", null, fold);
    }
    function fits(s, m, words) {
      var also = other.list.value.split(" ");
      if (also[0] !== "" && stateOf(run.image[+also[0]][s], run.gold[s]).right !== (also[1] === "right")) return false;
      if (state.list.value === "apart" ? !apart[s] : !stateOf(run.image[m][s], run.gold[s])[state.list.value]) return false;
      var text = (run.sample[s] + " " + (run.caption[s] || "")).toLowerCase();
      return words.every(function (word) { return text.indexOf(word) >= 0; });
    }
    function draw() {
      var m = +method.list.value, words = search.value.toLowerCase().split(/\s+/).filter(Boolean), found = [];
      run.sample.forEach(function (_, s) { if (fits(s, m, words)) found.push(s); });
      count.textContent = found.length + " of " + run.sample.length + " samples" + (found.length > shown ? ", the first " + shown + " listed" : "");
      list.replaceChildren.apply(list, found.slice(0, shown).map(function (s) { return item(s, m); }));
      more.classList.toggle("off", found.length <= shown);
    }
    [method.list, state.list, other.list].forEach(function (node) { node.addEventListener("change", function () { shown = PAGE; draw(); }); });
    search.addEventListener("input", function () { shown = PAGE; draw(); });
    more.addEventListener("click", function () { shown += PAGE; draw(); });
    draw();
  }
  window.addEventListener("beforeprint", function () {
    Array.prototype.forEach.call(document.querySelectorAll(".facts"), function (fold) { fold.open = true; });
  });
  Array.prototype.forEach.call(document.querySelectorAll("[data-explorer]"), function (place) {
    explorer(place, data.runs[place.dataset.explorer]);
  });
})();
