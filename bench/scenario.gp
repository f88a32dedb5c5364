# SPDX-License-Identifier: GPL-2.0
#
# The timeline of the camera's frames, from frames.csv, as PNG and SVG:
#   gnuplot -e "dir='OUTDIR'" bench/scenario.gp

if (!exists("dir")) {
	print "usage: gnuplot -e \"dir='OUTDIR'\" bench/scenario.gp"
	exit status 1
}
if (system("ls '" . dir . "/frames.csv' 2>/dev/null") eq "") {
	print "error: no frames.csv in " . dir . "; run make scenario first"
	exit status 1
}

period = 33.333
# Where the frames are drawn that never came
missed = 9000

ms(kernel, us) = strcol(1) eq kernel ? us / 1000.0 : NaN
in_time(kernel) = column(5) == 1 && column(4) <= period * 1000 ? ms(kernel, column(4)) : NaN
late(kernel) = column(5) == 1 && column(4) > period * 1000 ? ms(kernel, column(4)) : NaN
lost(kernel) = column(5) == 0 ? ms(kernel, missed * 1000) : NaN

set datafile separator comma
set border 3 lw 1
set tics nomirror out
set grid lc rgb "#dddddd" lt 1 lw 0.5
set logscale y
set yrange [1:20000]
set ytics (1, 10, "33" period, 100, 1000, "missed" missed)
set xlabel "s"
set ylabel "ms until the frame was there"
set key above

do for [type in "png svg"] {
	if (type eq "png") {
		set terminal pngcairo size 1000,760 font "DejaVu Sans,11" noenhanced
	} else {
		set terminal svg size 1000,760 font "DejaVu Sans,13" noenhanced
	}
	set output dir . "/timeline." . type
	set multiplot layout 2,1
	do for [kernel in "unpatched patched"] {
		set title "frames of the camera, " . kernel . " kernel"
		plot period with lines lc rgb "#888888" dt 2 notitle, \
			dir . "/frames.csv" every ::1 using ($3 / 1000):(in_time(kernel)) \
				with points pt 7 ps 0.5 lc rgb "#0072b2" title "in time", \
			"" every ::1 using ($3 / 1000):(late(kernel)) \
				with points pt 6 ps 0.8 lc rgb "#e69f00" title "late", \
			"" every ::1 using ($3 / 1000):(lost(kernel)) \
				with points pt 2 ps 0.8 lc rgb "#d55e00" title "missed"
	}
	unset multiplot
	set output
}
