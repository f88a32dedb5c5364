# SPDX-License-Identifier: GPL-2.0
#
# Plots of what analyse.py wrote, as PNG and SVG:
#   gnuplot -e "dir='OUTDIR'" bench/plots.gp

if (!exists("dir")) {
	print "usage: gnuplot -e \"dir='OUTDIR'\" bench/plots.gp"
	exit status 1
}
if (system("ls '" . dir . "/cost-load.dat' 2>/dev/null") eq "") {
	print "error: no data in " . dir . "; run bench/analyse.py first"
	exit status 1
}

# The colours of Okabe and Ito, which can be told apart by the colour-blind; each
# kernel has its own, and its own dashes for print.
colour(kernel) = kernel eq "unpatched" ? "#d55e00" : \
	kernel eq "retry" ? "#e69f00" : \
	kernel eq "longterm" ? "#009e73" : "#0072b2"
dashes(kernel) = kernel eq "unpatched" ? 2 : \
	kernel eq "retry" ? 4 : \
	kernel eq "longterm" ? 5 : 1

# The kernels in a file, in the order of its blocks
kernels(file) = system("sed -n 's/^# kernel //p' '" . file . "'")
rows(file) = int(system("grep -vc '^#' '" . file . "' || :"))

title_of(plot) = plot eq "alloc" ? \
	"Allocations that succeeded within a time (load hot-2x32)" : \
	"Latency of direct I/O in flight during an allocation (load hot-2x32)"
xlabel_of(plot) = plot eq "alloc" ? "time of cma_alloc() in ms" : "latency in ms"
# A curve of allocations that ends below 1: the others failed.
ylabel_of(plot) = plot eq "alloc" ? "share of all tries, failed ones included" : "share of the I/Os"

set border 3 lw 1
set errorbars 2 lc rgb "black" lw 1.5
set autoscale xfix
set tics nomirror out
set grid lc rgb "#dddddd" lt 1 lw 0.5

do for [type in "png svg"] {
	if (type eq "png") {
		set terminal pngcairo size 900,560 font "DejaVu Sans,12" noenhanced
	} else {
		set terminal svg size 900,560 font "DejaVu Sans,14" noenhanced
	}

	set logscale x
	set xtics (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, \
		1000, 2000, 5000, 10000)
	set yrange [-0.02:1.02]
	set key above
	do for [plot in "alloc io"] {
		file = dir . "/" . plot . "-cdf.dat"
		names = kernels(file)
		if (words(names) > 0) {
			set output dir . "/" . plot . "-cdf." . type
			set title title_of(plot)
			set xlabel xlabel_of(plot)
			set ylabel ylabel_of(plot)
			plot for [i = 1:words(names)] file index i - 1 using 1:2 with steps \
				lc rgb colour(word(names, i)) dt dashes(word(names, i)) lw 2.5 \
				title columnheader(1)
		} else {
			print "no " . plot . "-cdf." . type . ": no samples of the load hot-2x32"
		}
	}

	unset logscale x
	set xtics auto
	file = dir . "/cost-load.dat"
	nr = rows(file)
	if (nr > 0) {
		set output dir . "/cost-load." . type
		set xrange [-0.5:nr - 0.5]
		set lmargin 11
		set xtics font ",10"
		set multiplot layout 2,1
		set title "Time of an allocation with the series"
		unset xlabel
		set ylabel "patched: ms"
		set yrange [0:*]
		plot file using 0:3:xtic(1) with points lc rgb colour("patched") lw 2 pt 8 ps 1.6 \
				title "p99", \
			"" using 0:2 with points lc rgb colour("patched") pt 7 ps 1.4 title "p50"
		set title "How many succeed without it"
		set xlabel "load: threads x I/Os in flight of each; 4 KiB, 2 ms, area of 64 MB if not said otherwise"
		set ylabel "unpatched: success in %"
		set yrange [0:105]
		set ytics 25
		plot file using 0:4:5:6:(0.5):xtic(1) with boxerrorbars fs solid 0.6 \
			lc rgb colour("unpatched") title "share of all tries, 95 % interval"
		unset multiplot
		set xtics font ""
		set ytics auto
		set xrange [*:*]
		unset lmargin
	} else {
		print "no cost-load." . type . ": no samples of the patched kernel under a hot load"
	}
	unset output
}
