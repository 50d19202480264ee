# Connects to the Workload API and lets somebody else speak: the caller that borrows an identity (T-W1).
# Arguments: mode, socket path, file with the HTTP/2 preface, file with the call. What comes back goes
# to standard output; ends when the agent closes the connection.
use strict; use warnings; use Socket;
$^F = 255; # descriptors survive exec
$| = 1;
my ($mode, $path, $preface, $request) = @ARGV;

sub slurp { open(my $f, '<:raw', $_[0]) or die; local $/; return scalar <$f> }
sub pump { my ($s) = @_; while (sysread($s, my $part, 65536)) { print $part } exit 0 }
sub until_served {
  my ($s) = @_;
  my $seen = '';
  while ($seen !~ m{spiffe://example.org/perl}) {
    sysread($s, my $part, 65536) or die 'closed early';
    $seen .= $part;
  }
  print $seen;
}

if ($mode =~ /^speak (\d+)$/) {
  open(my $s, '+<&=', $1) or die;
  syswrite($s, slurp($request));
  pump($s);
}
socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die;
connect($s, sockaddr_un($path)) or die "connect: $!";
my $fd = fileno($s);
# The agent has taken note of who connected as soon as it answers.
syswrite($s, slurp($preface));
sysread($s, my $settings, 9) or die 'no settings';

if ($mode eq 'honest') {
  syswrite($s, slurp($request));
  until_served($s);
} elsif ($mode eq 'exec-other') {
  exec('/bin/sh', '-c', "cat '$request' >&$fd; cat <&$fd");
} elsif ($mode =~ /^exec-perl (\S+)$/) {
  exec($1, $0, "speak $fd", $path, $preface, $request);
} elsif ($mode eq 'orphan') {
  my $parent = $$;
  if (fork() == 0) {
    select(undef, undef, undef, 0.01) while getppid() == $parent;
    syswrite($s, slurp($request));
    pump($s);
  }
} elsif ($mode eq 'stream-exec') {
  syswrite($s, slurp($request));
  until_served($s);
  exec('/bin/sh', '-c', "cat <&$fd");
} elsif ($mode eq 'stream-orphan') {
  syswrite($s, slurp($request));
  until_served($s);
  pump($s) if fork() == 0;
} else { die "mode $mode" }
